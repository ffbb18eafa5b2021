"""Options that contradict each other, each with the nearest ones that do not."""

from types import SimpleNamespace

import pytest

from pixelbert_plugin.config import contradictions
from pixelbert_plugin.config.options import COMMAND_LINE, RunConfig
from pixelbert_plugin.registry.schema import ConfigError


def config(run_type="train_val", **options) -> RunConfig:
    made = RunConfig(datasets=["vqa2"], run_type=run_type)
    made.training.max_updates = 1
    for key, value in options.items():
        section, name = key.split("__")
        setattr(getattr(made, section), name, value)
    return made


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"training__batch_size": 1}, "training.batch_size"),
        ({"training__parallel": "fsdp", "training__precision": "apex"}, "training.parallel"),
        ({"training__dataset_weights": {"coco": 1.0}}, "training.dataset_weights.coco"),
        ({"training__max_updates": None}, "training.max_updates"),
        ({"checkpoint__resume": True, "env__overwrite": True}, "env.overwrite"),
        ({"checkpoint__resume_file": "x"}, "checkpoint.resume_file"),
    ],
)
def test_each_is_refused_by_its_key(monkeypatch, options, key):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError) as error:
        contradictions.refuse(config(**options))
    assert error.value.key == key


@pytest.mark.parametrize(
    "options",
    [
        {"training__batch_size": 2},  # one for each process
        {"training__parallel": "fsdp", "training__precision": "fp16"},
        {"training__parallel": "ddp", "training__precision": "apex"},
        {"training__dataset_weights": {"vqa2": 2.0}},
        {"training__max_updates": None, "training__max_epochs": 1.0},
        {"checkpoint__resume": True},
        {"env__overwrite": True},
        {"checkpoint__resume_file": "x", "checkpoint__resume": True},
        {"run_type": "val", "training__max_updates": None, "checkpoint__resume_file": "x"},
        {"run_type": "val", "checkpoint__resume": True},  # of a file that a training was saved with
    ],
)
def test_what_goes_together_is_not_refused(monkeypatch, options):
    monkeypatch.setenv("WORLD_SIZE", "2")
    contradictions.refuse(config(**options))


def test_an_early_stop_needs_val_and_a_resumption_a_training():
    made = config("train")
    made.training.early_stop.enabled = True
    with pytest.raises(ConfigError, match=r"^training.early_stop.enabled: needs val in run_type"):
        contradictions.refuse(made)
    made.run_type = "train_val"
    contradictions.refuse(made)
    made.run_type, made.checkpoint.resume = "val", True
    made.sources["checkpoint.resume"] = COMMAND_LINE
    with pytest.raises(ConfigError, match=r"^checkpoint.resume: is for training"):
        contradictions.refuse(made)


def test_pairs_are_whole_samples_and_groups_are_the_models():
    task = SimpleNamespace(pairs_per_sample=2)
    made = config(training__batch_size=6, training__micro_batch_size=3)
    with pytest.raises(ConfigError, match=r"^training.micro_batch_size: 3 pairs: a sample of the task 'nlvr2' is 2 of them"):
        contradictions.refuse_task("nlvr2", task, made.training)
    made.training.micro_batch_size = None
    contradictions.refuse_task("nlvr2", task, made.training)
    contradictions.refuse_groups("pixelbert", ["cnn", "transformer"], ["transformer", "cnn"])
    with pytest.raises(ConfigError, match=r"^optimizer.head: pixelbert has no such parameter group \(it has cnn\)"):
        contradictions.refuse_groups("pixelbert", ["cnn"], ["cnn", "head"])
    with pytest.raises(ConfigError, match=r"^optimizer.cnn: is not set"):
        contradictions.refuse_groups("pixelbert", ["cnn"], [])


def test_images_are_normalised_as_those_of_the_weights():
    imagenet, half = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    for trained_on, given in ((None, half), (half, None), (None, None), (imagenet, tuple(map(list, imagenet)))):
        contradictions.refuse_normalization(trained_on, given)
    with pytest.raises(ConfigError, match=r"^processors.image.params.mean: \[0.5, 0.5, 0.5\], but .* images of \[0.485, 0.456"):
        contradictions.refuse_normalization(imagenet, half)
    with pytest.raises(ConfigError, match=r"^processors.image.params.std: \[0.5, 0.5, 0.5\], but .* images of \[0.229, 0.224"):
        contradictions.refuse_normalization(imagenet, (imagenet[0], half[1]))
