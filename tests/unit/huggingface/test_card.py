"""The model card has what the run and its checkpoint say, and says where they say nothing."""

import yaml
from native_models import native

from pixelbert_plugin.checkpoint.checkpoints import TrainState
from pixelbert_plugin.huggingface.card import card

CONTENT = {
    "state": {**vars(TrainState()), "update": 1200, "samples": 9600, "best": 0.4321, "best_update": 1200},
    "config": "task: nlvr2\ntraining:\n  batch_size: 8\n",
    "versions": {"torch": "2.99", "pixelbert_plugin": "0.1.0"},
    "data": {"train/nlvr2": {"format": 2, "samples": 86373}, "val/nlvr2": {"samples": 6982}},
    "started_from": [{"key": "checkpoint.pretrained", "path": "save/pretrain/best", "update": 50000}],
}
RESULTS = {
    "val/nlvr2/accuracy": 0.51,
    "val/nlvr2/accuracy[kind=hard]": 0.4,
    "test/nlvr2/accuracy": 0.52,
    "training_seconds": 77.0,
}


def test_its_figures_are_the_runs(tmp_path):
    loaded = native("nlvr2", tmp_path)
    text = card(loaded, CONTENT, RESULTS, "my_run")
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["library_name"] == "transformers" and "license" not in head and "pipeline_tag" not in head
    (index,) = head["model-index"]
    assert [(result["dataset"]["split"], result["dataset"]["name"], result["metrics"]) for result in index["results"]] == [
        ("val", "nlvr2", [{"type": "accuracy", "name": "accuracy", "value": 0.51}]),
        ("test", "nlvr2", [{"type": "accuracy", "name": "accuracy", "value": 0.52}]),
    ]
    for line in (
        "| train/nlvr2 | 86,373 |",
        "| val/nlvr2/accuracy[kind=hard] | 0.4 |",
        "    pixelbert-run config=my_run/config.yaml run_type=val_test",
        "after update 1,200, 9,600 samples. Of this training's validations it was the best, at 0.4321.",
        "The weights started from checkpoint.pretrained=save/pretrain/best, after its update 50,000.",
        "Made with torch 2.99, pixelbert_plugin 0.1.0.",
        "  batch_size: 8",
        "- Texts are cut after 12 tokens;",
    ):
        assert line in text, line
    assert "77" not in text.replace("86,373", "")


def test_what_is_not_known_is_said(tmp_path):
    """And of answers their number."""
    content = {**CONTENT, "state": vars(TrainState()), "data": {}, "started_from": [], "versions": {}}
    text = card(native("vqa", tmp_path), content, {}, "x")
    assert "There is no evaluation of it in a results.json." in text and "model-index" not in text
    assert "the checkpoint does not say how many samples" in text and "else at random" in text
    assert "no other answer than the 5 of its vocabulary" in text and "visual-question-answering" in text
