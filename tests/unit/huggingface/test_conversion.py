"""From a native model to transformers' folder and back: weights, outputs, labels and vocabularies stay."""

import json
from importlib.metadata import version

import numpy as np
import pytest
import torch
import transformers
from native_models import TEXTS, native
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForPreTraining, AutoProcessor, AutoTokenizer

from pixelbert_plugin import UserError, load
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.huggingface import (
    PixelBertConfig,
    PixelBertForImagesAndTextClassification,
    PixelBertForQuestionAnswering,
    PixelBertModel,
    PixelBertProcessor,
    conversion,
    from_native,
    write,
)

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A question answerer, and the folder it was written to."""
    root = tmp_path_factory.mktemp("made")
    loaded = native("vqa", root, image_answers_weight=0.5)
    return loaded, write(loaded, root / "hf", "# card\n")


@torch.no_grad()
def test_the_folder_is_read_by_transformers_and_by_load_with_the_same_outputs(folder):
    loaded, path = folder
    assert {file.name for file in path.iterdir()} >= {
        "README.md",
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert len({file.stat().st_mode for file in path.iterdir()}) == 1  # who may read one may read all
    expected = loaded(PICTURE, TEXTS[0]).logits
    model, processor = PixelBertForQuestionAnswering.from_pretrained(path), AutoProcessor.from_pretrained(path)
    assert isinstance(processor, PixelBertProcessor) and not model.training
    logits = model(**processor(images=PICTURE, text=TEXTS[0], return_tensors="pt")).logits
    assert torch.equal(logits, expected["answers"])
    back = load(path)
    assert back(PICTURE, TEXTS[0]).logits.keys() == {"answers", "image_answers"}
    assert torch.equal(back(PICTURE, TEXTS[0]).logits["answers"], expected["answers"])
    assert back.processors["answers"].state_dict() == loaded.processors["answers"].state_dict()
    assert back.processors["text"].state_dict() == loaded.processors["text"].state_dict()
    assert back.config.training == loaded.config.training and back.task.config == loaded.task.config
    assert back.processors["image"].config == loaded.processors["image"].config


def test_labels_are_the_answers_as_they_are_predicted(folder):
    loaded, path = folder
    config = AutoConfig.from_pretrained(path)
    assert isinstance(config, PixelBertConfig) and config.num_labels == 5
    assert [config.id2label[index] for index in range(5)] == loaded.processors["answers"].spellings
    assert "T-shirt" in config.label2id and "t shirt" in config.answers
    saved = json.loads((path / "config.json").read_text())
    assert saved["architectures"] == ["PixelBertForQuestionAnswering"] and saved["run"]["training"]["batch_size"] == 8
    assert str(path.parent) not in (path / "config.json").read_text()  # nothing of this machine


def test_auto_classes_find_it(folder):
    _, path = folder
    assert type(AutoConfig.from_pretrained(path)) is PixelBertConfig
    assert type(AutoModel.from_pretrained(path)) is PixelBertModel
    assert type(AutoImageProcessor.from_pretrained(path)).__name__ == "PixelBertImageProcessor"
    assert AutoTokenizer.from_pretrained(path)("a disc")["input_ids"]
    assert type(AutoModelForPreTraining.from_pretrained(path)).__name__ == "PixelBertForPreTraining"
    if hasattr(transformers, "AutoModelForVisualQuestionAnswering"):
        found = transformers.AutoModelForVisualQuestionAnswering.from_pretrained(path)
        assert type(found) is PixelBertForQuestionAnswering


@pytest.mark.slow
@torch.no_grad()
def test_what_transformers_saves_anew_reads_back(folder, tmp_path):
    """After calls that leave padding and limits in the tokenizer, in shards, in half precision."""
    loaded, path = folder
    model, processor = PixelBertForQuestionAnswering.from_pretrained(path), PixelBertProcessor.from_pretrained(path)
    processor(images=PICTURE, text=TEXTS[0], padding="max_length", max_length=5)
    model.save_pretrained(tmp_path / "again", max_shard_size="20MB")
    processor.save_pretrained(tmp_path / "again")
    assert len(list((tmp_path / "again").glob("model-*.safetensors"))) > 1
    back = load(tmp_path / "again")
    assert torch.equal(back(PICTURE, TEXTS[0]).logits["answers"], loaded(PICTURE, TEXTS[0]).logits["answers"])
    model.half().save_pretrained(tmp_path / "half")
    processor.save_pretrained(tmp_path / "half")
    bfloat = PixelBertForQuestionAnswering.from_pretrained(path, dtype=torch.bfloat16)
    logits = bfloat(**processor(images=PICTURE, text=TEXTS[0], return_tensors="pt")).logits
    torch.testing.assert_close(logits.float(), loaded(PICTURE, TEXTS[0]).logits["answers"], rtol=0.1, atol=0.2)
    half = load(tmp_path / "half")
    assert next(half.model.parameters()).dtype == torch.float32
    torch.testing.assert_close(
        half(PICTURE, TEXTS[0]).logits["answers"], loaded(PICTURE, TEXTS[0]).logits["answers"], rtol=0.05, atol=0.05
    )


@pytest.mark.slow
@torch.no_grad()
def test_a_model_that_transformers_alone_made_is_loaded_too(tmp_path):
    """No run of ours: the task and the labels are what config.json has."""
    loaded = native("nlvr2", tmp_path)
    _, processor = from_native(loaded)
    config = PixelBertConfig(
        model_options=from_native(loaded)[0].config.model_options, vocab_size=loaded.processors["text"].vocab_size, task="nlvr2"
    )
    model = PixelBertForImagesAndTextClassification(config).eval()
    model.save_pretrained(tmp_path / "theirs")
    processor.save_pretrained(tmp_path / "theirs")
    back = load(tmp_path / "theirs")
    assert back.config.datasets == ["unknown"] and back.config.task == "nlvr2"
    pair = [PICTURE, PICTURE[:, ::-1].copy()]
    inputs = processor(images=pair, text=TEXTS[2], return_tensors="pt")
    assert torch.equal(back(pair, TEXTS[2]).logits["pair"], model(**inputs).logits)
    assert from_native(loaded)[0].config.id2label == {0: "False", 1: "True"}


@pytest.mark.slow
def test_it_is_pushed_by_huggingface_hub(folder, monkeypatch):
    """Without network: huggingface_hub's client is stood in for."""
    import huggingface_hub

    pushed = {}

    def create_repo(repo_id, **_):
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def create_commit(repo_id, operations, **_):
        pushed[repo_id] = {operation.path_in_repo for operation in operations}
        address = f"https://huggingface.co/{repo_id}/commit/0"
        return huggingface_hub.CommitInfo(commit_url=address, commit_message="", commit_description="", oid="0")

    for stand_in in (create_repo, create_commit):
        monkeypatch.setattr(huggingface_hub.HfApi, stand_in.__name__, staticmethod(stand_in))
        monkeypatch.setattr(transformers.utils.hub, stand_in.__name__, stand_in, raising=False)  # 5.0 has taken them out of it
    monkeypatch.setattr(huggingface_hub.ModelCard, "load", lambda *_, **__: huggingface_hub.ModelCard("---\n---\n"))
    model, processor = from_native(folder[0])
    model.push_to_hub("somebody/pixelbert")
    assert {"config.json", "model.safetensors"} <= pushed["somebody/pixelbert"]
    processor.push_to_hub("somebody/pixelbert")
    assert {"processor_config.json", "tokenizer.json"} <= pushed["somebody/pixelbert"]


def test_a_folder_that_holds_something_stays_as_it_is(folder, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine").write_text("")
    with pytest.raises(UserError, match=r"--export '.*taken': is there already and not empty; choose another folder"):
        write(folder[0], tmp_path / "taken", "")
    assert [file.name for file in tmp_path.iterdir()] == ["taken"] and [*(tmp_path / "taken").iterdir()] == [
        tmp_path / "taken/mine"
    ]


@pytest.mark.slow
def test_an_empty_folder_is_taken(folder, tmp_path):
    assert write(folder[0], tmp_path, "# card") == tmp_path and (tmp_path / "README.md").read_text() == "# card"


@pytest.mark.slow
def test_a_write_that_fails_leaves_nothing(folder, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion.PixelBertProcessor, "save_pretrained", fail)
    with pytest.raises(UserError, match="cannot be written"):
        write(folder[0], tmp_path / "hf", "")
    assert not list(tmp_path.iterdir())


def test_what_transformers_has_no_class_for_is_one_line(tmp_path):
    loaded = native("vqa", tmp_path)
    loaded.config.task = "their_task"
    with pytest.raises(
        UserError, match=r"task='their_task': transformers has no class for it here; --export FILE\.safetensors"
    ):
        from_native(loaded)
    loaded.config.task, loaded.is_fast = "vqa", True
    with pytest.raises(UserError, match="a model loaded with fast=True is for inference alone"):
        from_native(loaded)


@pytest.mark.slow
def test_the_command_writes_the_best_checkpoint(tiny_run, tmp_path, capsys):
    """With a card of the run's own figures; loaded, it says what the run's own checkpoint says."""
    arguments = [f"config={tiny_run / 'config.yaml'}", "--format", "hf", "--export"]
    assert cli.main([*arguments, str(tmp_path / "hf")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "hf")
    expected, found = load(tiny_run)(PICTURE, TEXTS[0]).logits, load(tmp_path / "hf")(PICTURE, TEXTS[0]).logits
    assert torch.equal(found["answers"], expected["answers"])
    card = (tmp_path / "hf/README.md").read_text()
    results = json.loads((tiny_run / "results.json").read_text())
    for key in ("val/vqa2/accuracy", "val/vqa2/ceiling", "val/vqa2/accuracy[answer_type=number]"):
        assert f"| {key} | {results[key]:.6g} |" in card
    assert "pixelbert-run config=run/config.yaml run_type=val" in card and "| train/vqa2 | 36 |" in card
    assert f"torch {version('torch')}" in card and "CC BY 4.0" in card and str(tiny_run) not in card
    assert cli.main([*arguments, str(tmp_path / "hf")]) == 2
    assert "is there already and not empty" in capsys.readouterr().err
