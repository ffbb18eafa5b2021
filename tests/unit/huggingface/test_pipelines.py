"""The pipeline's answers are the native model's, by their probabilities."""

import numpy as np
import pytest
import torch
import transformers
from native_models import TEXTS, native

from pixelbert_plugin.huggingface import write

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_a_question_is_answered(tmp_path):
    loaded = native("vqa", tmp_path)
    answer = transformers.pipeline("pixelbert-question-answering", model=str(write(loaded, tmp_path / "hf", "")), device="cpu")
    logits_A = loaded(PICTURE, TEXTS[0]).logits["answers"][0]
    found = answer(image=PICTURE, question=TEXTS[0], top_k=2)
    names = loaded.processors["answers"].spellings
    best = logits_A.argsort(descending=True)[:2].tolist()
    assert [entry["answer"] for entry in found] == [names[index] for index in best]
    assert [entry["score"] for entry in found] == torch.sigmoid(logits_A)[best].tolist()
    several = answer([{"image": PICTURE, "question": text} for text in TEXTS[:2]])
    assert [len(entries) for entries in several] == [5, 5] and several[0][:2] == found
    with pytest.raises(ValueError, match="give image=… and question=…"):
        answer(image=PICTURE)
    with pytest.raises(ValueError, match="topk: no option of pixelbert-question-answering; it has top_k"):
        answer(image=PICTURE, question=TEXTS[0], topk=2)
    with pytest.raises(ValueError, match="top_k=0: must be at least 1"):
        answer(image=PICTURE, question=TEXTS[0], top_k=0)
