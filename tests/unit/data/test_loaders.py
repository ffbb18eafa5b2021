"""What a run's loaders ask of the model: the hidden states that the task's heads read, or all."""

from types import SimpleNamespace

import pytest
import torch

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import TrainingConfig
from pixelbert_plugin.data.loaders import Loaders
from pixelbert_plugin.data.mixture import Mixture
from unit.data.builders.test_vqa2 import builder


@pytest.mark.parametrize("name", ["vqa", "retrieval", "pretrain", "a task that says nothing"])
def test_batches_say_what_is_read(name, vqa2_root):
    mixture = Mixture("train", {"vqa2": builder(vqa2_root).samples("train")}, {"vqa2": "error"})
    text = registry.build("processor", "bert_tokenizer", {"vocabulary": "train"}, "t")
    text.fit(sample.text for sample in mixture)
    answers = registry.build("processor", "answers", {"min_occurrences": 1}, "a")
    answers.fit(sample.answer for sample in mixture)
    processors = {"text": text, "image": registry.build("processor", "image", {}, "i"), "answers": answers}
    if name.startswith("a task"):
        task = SimpleNamespace(num_negatives=0, reads_logits_only=False, prepare=lambda batch, seeds: None)
    else:
        options = {"num_negatives": 2, "num_hardest": 1} if name == "retrieval" else {}
        task = registry.build("task", name, options, "t", processors=processors)
    training = TrainingConfig(num_workers=0, max_updates=1)
    loader = Loaders(training, None, task, processors, torch.device("cpu")).of(mixture)
    batch = next(iter(loader.evaluate(4)))
    if name == "pretrain":
        words = batch.targets["mlm_positions"].tolist()
        length = batch.input_ids.shape[1]
        for row, places in enumerate(batch.read_positions.tolist()):
            assert places[0] == 0 and [row * length + place for place in places if place] == [
                word for word in words if word // length == row
            ]
        assert words
    elif name.startswith("a task"):
        assert batch.read_positions is None
    else:
        assert batch.read_positions.tolist() == [[0]] * len(batch.input_ids)
