"""The README's demo: the easy-VQA plugin, its data, and what it learns."""

import json
from pathlib import Path

import easy_vqa
import pytest

from pixelbert_plugin import registry
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.registry import plugins

ROOT = Path(__file__).parent.parent.parent
CONFIG = f"config={ROOT / 'projects/easy_vqa/configs/easy_vqa.yaml'}"

# another builder of the same name's data, with every image replaced by another sample's
SHUFFLED = """
import dataclasses, random
from pixelbert_plugin import registry

@registry.register_builder("shuffled_easy_vqa")
class Shuffled(registry.get("builder", "easy_vqa")):
    '''easy-VQA with the images of a split permuted among its questions.'''

    def samples(self, split):
        samples = super().samples(split)
        order = random.Random(0).sample(range(len(samples)), len(samples))
        return [dataclasses.replace(s, images=samples[o].images, image_ids=samples[o].image_ids)
                for s, o in zip(samples, order)]
"""


@pytest.fixture(scope="module")
def shuffled_plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "shuffled.py"
    path.write_text(SHUFFLED)
    return path


def results_on_shuffled_images(run, plugin, folder):
    """Accuracy and prior of a run's best checkpoint on the test split with permuted images, and all results."""
    arguments = (
        "run_type=test",
        "datasets=[shuffled_easy_vqa]",
        f"env.user_dir={plugin}",
        f"env.save_dir={folder}",
        f"checkpoint.resume_file={run / 'checkpoints/best'}",
    )
    assert cli.main([CONFIG, *arguments]) == 0
    found = json.loads((folder / "results.json").read_text())
    return found["test/shuffled_easy_vqa/accuracy"], found["test/shuffled_easy_vqa/question_prior"], found


@pytest.fixture(scope="module")
def builder():
    plugins.load(str(ROOT / "projects/easy_vqa"))
    return registry.build("builder", "easy_vqa", {}, data_dir=Path("."))


def test_the_plugin_yields_the_package_split_by_image(builder):
    splits = {split: builder.samples(split) for split in ("train", "val", "test")}
    questions, answers, images = easy_vqa.get_train_questions()
    assert len(splits["train"]) + len(splits["val"]) == len(questions) == 38_575
    assert len(splits["test"]) == 9_673
    assert not {s.image_ids for s in splits["train"]} & {s.image_ids for s in splits["val"]}
    for sample in splits["train"][::997] + splits["val"][::97]:
        number = sample.sample_id
        assert (sample.text, sample.answer, sample.image_ids[0]) == (questions[number], answers[number], images[number])
    test_images = set(easy_vqa.get_test_image_paths().values())
    assert {str(s.images[0]) for s in splits["test"]} <= test_images
    assert not {str(s.images[0]) for s in splits["train"] + splits["val"]} & test_images


def test_question_kinds_and_prior(builder):
    kinds = {sample.groups["question_type"] for sample in builder.samples("test")}
    assert kinds == {"which shape", "which color", "is it this shape", "is it this color"}


@pytest.mark.slow
def test_a_short_run_by_the_readmes_command(tmp_path, capsys, builder, shuffled_plugin):
    arguments = ("training.max_updates=3", "training.evaluation_interval=3", "training.log_interval=1")
    assert cli.main([CONFIG, f"env.save_dir={tmp_path / 'run'}", *arguments]) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    # prior over the 34,701 training questions that are not held out; over all 38,575 it is 67.0 %
    assert results["test/easy_vqa/question_prior"] == pytest.approx(0.67, abs=0.002)
    out = capsys.readouterr().out
    for word in ("which shape", "which color", "is it this shape", "question_prior", "tensorboard --logdir"):
        assert word in out
    rows = json.loads((tmp_path / "run/predictions/test_easy_vqa.json").read_text())
    assert len(rows) == len({row["question_id"] for row in rows}) == 9_673
    _, prior, _ = results_on_shuffled_images(tmp_path / "run", shuffled_plugin, tmp_path / "shuffled")
    assert prior == pytest.approx(results["test/easy_vqa/question_prior"])


def test_the_recipe_is_a_true_pixel_bert(builder):
    """At least 4 pixels and 2 layers, as the resolved configuration builds it."""
    from pixelbert_plugin import config as configuration

    config = configuration.complete(configuration.load(CONFIG.removeprefix("config=")))
    options = config.model_config["pixelbert"]
    assert options.text_encoder.params.num_hidden_layers >= 2
    encoder = registry.build_component("encoder", options.image_encoder, "e").eval()
    import torch

    size = config.processors.image.params.short_edge
    features = encoder(torch.zeros(1, 3, size, size), torch.tensor([[size, size]]))
    assert features.grid[0] * features.grid[1] >= 4


@pytest.mark.slow
def test_the_recipe_shortened_learns_and_needs_the_image(tmp_path, shuffled_plugin):
    """The README's command with fewer epochs: at least 90 % on the test split; shuffled images no better than the question."""
    shorter = ("training.max_epochs=5", "scheduler.params.milestones=[3.5, 4.5]")
    assert cli.main([CONFIG, f"env.save_dir={tmp_path / 'run'}", *shorter]) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["test/easy_vqa/accuracy"] >= 0.9
    assert results["test/easy_vqa/accuracy[question_type=which shape]"] >= 0.9
    assert results["training_seconds"] > 0

    accuracy, prior, shuffled = results_on_shuffled_images(tmp_path / "run", shuffled_plugin, tmp_path / "shuffled")
    assert accuracy <= prior + 0.01
    assert shuffled["test/shuffled_easy_vqa/accuracy[question_type=which shape]"] < 0.45
