"""Configuration files: includes, overrides, provenance, errors."""

from pathlib import Path

import pytest
import yaml

from pixelbert_plugin import config as configuration
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import Component

BASE = "datasets: [vqa2]\n"


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_includes_are_relative_and_later_wins(tmp_path):
    write(tmp_path / "base/a.yaml", "training: {batch_size: 1, seed: 1, num_workers: 1}\n")
    write(tmp_path / "base/b.yaml", "includes: [a.yaml]\ntraining: {batch_size: 2, seed: 2}\n")
    top = write(tmp_path / "top.yaml", BASE + "includes: [base/b.yaml]\ntraining: {batch_size: 3}\n")
    config = configuration.load(top, ["training.num_workers=7"])
    training = config.training
    assert (training.batch_size, training.seed, training.num_workers) == (3, 2, 7)
    assert config.sources["training.batch_size"] == top
    assert config.sources["training.seed"].endswith("base/b.yaml")
    assert config.sources["training.num_workers"] == "command line"
    assert configuration.source_of("training.log_interval", config.sources) == "default"


def test_include_of_itself_and_missing_include_are_named(tmp_path):
    write(tmp_path / "a.yaml", "includes: [b.yaml]\n")
    write(tmp_path / "b.yaml", "includes: [a.yaml]\n")
    with pytest.raises(UserError, match="includes itself"):
        configuration.load(str(tmp_path / "a.yaml"))
    top = write(tmp_path / "c.yaml", "includes: [nowhere.yaml]\n")
    with pytest.raises(UserError, match=r"c.yaml: includes 'nowhere.yaml': no such file"):
        configuration.load(top)


@pytest.mark.parametrize("includes", ["3", "[1]", "[null]", "base.yaml"])
def test_includes_must_be_a_list_of_paths(tmp_path, includes):
    with pytest.raises(UserError, match="must be a list of paths"):
        configuration.load(write(tmp_path / "a.yaml", f"includes: {includes}\n"))


def test_unknown_key_names_near_spelling_and_file(tmp_path):
    top = write(tmp_path / "a.yaml", BASE + "training: {batchsize: 3}\n")
    with pytest.raises(UserError) as error:
        configuration.load(top)
    assert "training.batchsize: unknown key; did you mean batch_size?" in str(error.value)
    assert f"(set in {top})" in str(error.value)


@pytest.mark.parametrize(
    ("override", "start"),
    [
        ("training.batch_size=many", "training.batch_size: 'many' is invalid"),
        ("training.batch_size=0", "training.batch_size: 0 is invalid: must be at least 1"),
        ("training.device=tpu", "training.device: 'tpu' is invalid"),
        ("training.device=mps", "training.device: 'mps' is invalid: must be auto, cpu or cuda"),
        ("run_type=train_train", "run_type: 'train_train' is invalid"),
        ("trainig.seed=3", "trainig: unknown key; did you mean training?"),
        ("checkpoint.max_to_keep=-1", "checkpoint.max_to_keep: -1 is invalid"),
        ("training=3", "training: 3 is not a mapping of options"),
        ("model_config=[1]", "model_config: [1] is not a mapping"),
        ("datasets={a: 1}", "datasets: {'a': 1} is not a list"),
        ("datasets=[[vqa2]]", "datasets[0]: ['vqa2'] is not a single value"),
        ("datasets=[vqa2,vqa2]", "datasets: ['vqa2', 'vqa2'] is invalid: a data set is duplicated"),
        ("scheduler=step", "scheduler: 'step' is not a mapping of options"),
        ("optimizer={cnn: [1]}", "optimizer.cnn: [1] is not a mapping of options"),
        ("training.max_epochs=.nan", "training.max_epochs: nan is invalid: must be finite"),
        ("training.seed=99999999999999999999", "training.seed: 99999999999999999999 is invalid"),
        ("training.num_workers=100000", "training.num_workers: 100000 is invalid: must be at most 1024"),
    ],
)
def test_bad_override_is_refused_with_key_and_value(tmp_path, override, start):
    top = write(tmp_path / "a.yaml", BASE)
    with pytest.raises(UserError) as error:
        configuration.load(top, [override])
    assert str(error.value).startswith(start), str(error.value)
    assert "(set in command line)" in str(error.value)


def test_override_without_equals_is_explained(tmp_path):
    with pytest.raises(UserError, match="options are given as key=value"):
        configuration.load(write(tmp_path / "a.yaml", BASE), ["--fast"])


def test_broken_yaml_names_file_and_line(tmp_path):
    top = write(tmp_path / "a.yaml", "training:\n  batch_size: [1\nseed: 2\n")
    with pytest.raises(UserError, match=r"a.yaml: line \d+: not valid YAML"):
        configuration.load(top)
    with pytest.raises(UserError, match="holds no mapping"):
        configuration.load(write(tmp_path / "b.yaml", "- 1\n"))


def test_missing_file_says_where_it_was_looked_for():
    with pytest.raises(UserError, match="working folder nor in the installed package"):
        configuration.load("projects/none.yaml")


def test_user_dir_is_relative_to_the_file_that_names_it(tmp_path):
    write(tmp_path / "plugin/configs/inner.yaml", "env: {user_dir: ..}\n")
    top = write(tmp_path / "top.yaml", BASE + "includes: [plugin/configs/inner.yaml]\n")
    assert configuration.load(top).env.user_dir == str(tmp_path / "plugin")


def test_interpolation_and_comma_separated_datasets(tmp_path):
    top = write(tmp_path / "a.yaml", "datasets: 'vqa2, other'\nenv: {data_dir: /x, save_dir: '${env.data_dir}/run'}\n")
    config = configuration.load(top)
    assert config.datasets == ["vqa2", "other"] and config.env.save_dir == "/x/run"
    with pytest.raises(UserError, match=r"env.save_dir"):
        configuration.load(write(tmp_path / "b.yaml", BASE + "env: {save_dir: '${env.nothing}'}\n"))


def test_save_dir_defaults_to_the_name_of_the_config(tmp_path):
    assert configuration.load(write(tmp_path / "my_run.yaml", BASE)).env.save_dir == "save/my_run"


def test_resolved_dump_loads_back_to_the_same(tiny_config, tmp_path):
    config = configuration.complete(configuration.load(str(tiny_config)))
    again = write(tmp_path / "again.yaml", configuration.to_yaml(config, tmp_path))
    loaded = configuration.complete(configuration.load(again))
    assert configuration.dump(loaded) == configuration.dump(config)


def test_only_the_options_that_are_wanted_are_completed(tiny_config):
    """A checkpoint is loaded where the data sets that it was trained on are unknown."""
    options = ["optimizer.cnn.type=not_here", "processors.answers.type=nor_this", "dataset_config.vqa2.nothing=1"]
    config = configuration.load(str(tiny_config), options)
    configuration.configure(config, only=["model_config.pixelbert", "processors.image.params"])
    assert config.chosen_model.params.image_encoder.params.max_pool is False
    assert config.processors.image.params.long_edge == 96
    assert isinstance(config.processors.text.params, dict) and config.task_config == {}
    assert config.components["answers"].type == "nor_this" and config.components["task"] == Component("vqa", {})
    with pytest.raises(UserError, match=r"^processors.answers.type: no processor is registered as 'nor_this'"):
        configuration.configure(config, only=["processors.answers.params"])


def test_annotated_dump_is_yaml_and_gives_each_value_its_source(tiny_config):
    config = configuration.complete(configuration.load(str(tiny_config), ["training.seed=5"]))
    text = configuration.to_annotated_yaml(config)
    assert yaml.safe_load(text) == configuration.dump(config)
    lines = {line.split(":")[0].strip(): line for line in text.splitlines()}
    assert lines["seed"].endswith("# command line")
    assert lines["max_to_keep"].endswith("# default")
    assert lines["batch_size"].endswith(("# default", f"# {tiny_config}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=pixelbrt", "model: no model is registered as 'pixelbrt'; did you mean pixelbert?"),
        ("datasets=[vqa3]", "datasets: no builder is registered as 'vqa3'; did you mean vqa2?"),
        ("model_config.pixelbrt.num_sampled_pixels=3", "model_config.pixelbrt: no model is registered"),
        ("optimizer.cnn.params.learning_rate=3", "optimizer.cnn.params.learning_rate: unknown key"),
        ("optimizer.cnn.type=sdg", "optimizer.cnn.type: no optimizer is registered as 'sdg'; did you mean sgd?"),
        ("processors.text.params.max_length=2", "processors.text.params.max_length: 2 is invalid: must be at least 3"),
        ("training.precision=fp8", "training.precision: no precision is registered as 'fp8'"),
        ("scheduler.params.milestones=[3,1]", "scheduler.params.milestones: [3.0, 1.0] is invalid: must ascend"),
        ("optimizer.cnn.params.lr=-1", "optimizer.cnn.params.lr: -1.0 is invalid: must be at least 0"),
        ("optimizer.transformer.params.betas=[2]", "optimizer.transformer.params.betas: [2.0] is invalid: needs two"),
        (
            "model_config.pixelbert.text_encoder.params.hidden_size=0",
            "model_config.pixelbert.text_encoder.params.hidden_size: 0",
        ),
        ("model_config.pixelbert.pixel_dropout=2", "model_config.pixelbert.pixel_dropout: 2.0 is invalid: must be at most 1"),
        (
            "model_config.pixelbert.image_encoder.params=[1]",
            "model_config.pixelbert.image_encoder.params: [1] is not a mapping",
        ),
        ("processors.image.params.std=[0,1,1]", "processors.image.params.std: [0.0, 1.0, 1.0] is invalid: must be above 0"),
        ("task_config.vqa.image_answers_weight=.nan", "task_config.vqa.image_answers_weight: nan is invalid: must be finite"),
        ("dataset_config.vqa2.splits=[1]", "dataset_config.vqa2.splits: [1] is not a mapping"),
        ("dataset_config.vqa2.on_bad_image=ignore", "dataset_config.vqa2.on_bad_image: 'ignore' is invalid"),
    ],
)
def test_components_options_are_checked_before_any_work(tiny_config, override, message):
    with pytest.raises(UserError) as error:
        configuration.complete(configuration.load(str(tiny_config), [override]))
    assert str(error.value).startswith(message), str(error.value)


@pytest.mark.parametrize("name", ["vqa2", "vqa2_x152"])
def test_the_papers_recipes_are_complete(name):
    config = configuration.complete(configuration.load(f"projects/pixelbert/configs/{name}.yaml"))
    assert config.optimizer["cnn"].params.lr == 1e-2 and config.optimizer["cnn"].params.weight_decay == 5e-4
    assert config.optimizer["transformer"].params.lr == 1e-4
    assert config.optimizer["transformer"].params.weight_decay == 1e-2
    assert config.training.batch_size == 256 and config.training.max_epochs == 18
    assert config.scheduler.params.milestones == [12, 16] and config.scheduler.params.gamma == 0.1
    edges = {"vqa2": (800, 1333), "vqa2_x152": (600, 1000)}[name]
    image = config.processors.image.params
    assert (image.short_edge, image.long_edge) == edges
