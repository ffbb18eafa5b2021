"""The registry: names, origins, duplicates, options."""

from dataclasses import asdict, dataclass, field

import catalogue
import pytest
import torch

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import plugins, schema, yaml_text
from pixelbert_plugin.registry.schema import Component, ConfigError, component


def test_every_builtin_the_design_names_is_registered():
    assert registry.names("model") == ["pixelbert"]
    expected = {"resnet18", "resnet50", "resnet101", "resnext152_32x4d", "resnext152_32x8d", "bert"}
    assert expected <= set(registry.names("encoder"))
    assert {"fp32", "bf16"} <= set(registry.names("precision"))
    assert registry.names("explanation") == ["attention", "integrated_gradients", "relevance", "rollout"]
    assert {"sgd", "adamw"} <= set(registry.names("optimizer"))
    assert {"coco", "flickr30k", "nlvr2", "table", "visual_genome", "visual_genome_qa", "vqa2"} <= set(
        registry.names("builder")
    )
    assert registry.origin("model", "pixelbert") == "built-in"


def test_taken_name_is_refused_naming_both_origins():
    with pytest.raises(UserError) as error:

        @registry.register_model("pixelbert")
        class Other:
            """Another."""

    assert "pixelbert_plugin/models/pixelbert.py" in str(error.value)
    assert "test_registry.py" in str(error.value)
    assert registry.get("model", "pixelbert").__name__ == "PixelBert"


def test_unknown_name_answers_with_the_nearest_and_how_to_load_a_plugin():
    with pytest.raises(UserError) as error:
        registry.get("encoder", "resnet5", "model_config.pixelbert.image_encoder.type")
    message = str(error.value)
    assert message.startswith("model_config.pixelbert.image_encoder.type: no encoder is registered as 'resnet5'")
    assert "did you mean resnet50?" in message or "did you mean resnet18?" in message
    assert "env.user_dir" in message


@dataclass(kw_only=True)
class Inner:
    depth: int = 2  # layers


@dataclass(kw_only=True)
class Outer:
    rate: float = 0.5  # per update
    names: list[str] = field(default_factory=list)  # of things
    part: Component = component("scheduler", "step")  # nested


def test_merge_names_unknown_key_with_its_full_path_and_near_spelling():
    with pytest.raises(ConfigError) as error:
        schema.merge(Outer, {"rat": 1}, "model_config.x")
    assert str(error.value).startswith("model_config.x.rat: unknown key; did you mean rate?")


@pytest.mark.parametrize(
    ("node", "start"),
    [
        ({"rate": "fast"}, "a.rate: 'fast' is invalid:"),
        ({"names": 3}, "a.names: 3 is not a list"),
        ({"rate": None}, "a.rate: None is invalid:"),
        ("text", "a: 'text' is not a mapping"),
    ],
)
def test_merge_refuses_ill_typed_values(node, start):
    with pytest.raises(ConfigError) as error:
        schema.merge(Outer, node, "a")
    assert str(error.value).startswith(start)


def test_merge_keeps_defaults_and_converts_numbers():
    merged = schema.merge(Outer, {"rate": "1e-4"})
    assert merged.rate == 1e-4 and merged.names == [] and merged.part.type == "step"


def test_nested_component_options_are_checked_with_full_path():
    node = {"image_encoder": {"type": "resnet18", "params": {"max_poll": True}}}
    with pytest.raises(ConfigError) as error:
        registry.configure("model", "pixelbert", node, "model_config.pixelbert")
    assert "model_config.pixelbert.image_encoder.params.max_poll: unknown key; did you mean max_pool?" in str(error.value)


def test_configure_fills_in_nested_defaults():
    config = registry.configure("model", "pixelbert", {"image_encoder": {"type": "resnet18"}}, "model_config.pixelbert")
    assert asdict(config.image_encoder.params) == {
        "weights": None,
        "weights_format": "auto",
        "stride_in_1x1": None,
        "norm": "trainable",
        "max_pool": True,
        "num_stages": 4,
    }


def test_component_without_options_refuses_any():
    with pytest.raises(ConfigError, match="takes no options"):
        registry.configure("metric", "vqa_accuracy", {"k": 3}, "m")


def test_check_of_the_dataclass_itself_is_reported_with_its_key():
    with pytest.raises(ConfigError) as error:
        registry.configure("model", "pixelbert", {"num_sampled_pixels": 0}, "model_config.pixelbert")
    assert str(error.value).startswith("model_config.pixelbert.num_sampled_pixels: 0 is invalid: must be at least 1")


@pytest.mark.parametrize("name", [None, "", 3, type("Mine", (), {}), lambda: 0])
def test_a_decorator_without_a_name_is_refused(name):
    """`@registry.register_builder` without (…) would make of the class a function that nobody finds."""
    with pytest.raises(UserError, match=r'@registry.register_builder\("NAME"\)'):
        registry.register_builder(name)


def test_an_instance_is_no_config():
    @dataclass
    class Options:
        depth: int = 1

    with pytest.raises(UserError, match="its Config is not a dataclass"):
        registry.register_metric("of_an_instance")(type("Mine", (), {"Config": Options()}))


def test_options_of_a_component_that_takes_none_are_named():
    with pytest.raises(UserError, match=r"^p\.a: unknown key: the task 'nlvr2' takes no options"):
        registry.configure("task", "nlvr2", {"a": 1}, "p")
    assert registry.configure("task", "nlvr2", yaml_text.Typed("{}"), "p") is None


@pytest.mark.parametrize(
    "kind, name, meant", [("builder", "VQA2", "vqa2"), ("task", "NLVR2", "nlvr2"), ("optimizer", "AdamW", "adamw")]
)
def test_a_name_in_capitals_is_recognised(kind, name, meant):
    with pytest.raises(UserError, match=f"did you mean {meant}\\?"):
        registry.get(kind, name)


@pytest.mark.parametrize("name", ["coco", "nlvr2", "vqa2"])
def test_an_official_data_set_without_its_files_names_the_yaml(tmp_path, name):
    builder = registry.build("builder", name, {}, f"dataset_config.{name}", data_dir=tmp_path)
    with pytest.raises(UserError, match=rf"dataset_config\.{name}\.splits: is empty; include datasets/{name}/defaults\.yaml"):
        builder.samples("train")


@pytest.mark.parametrize(
    "key, value, meant",
    [
        ("type", "adamw", "o.cnn.type or o.bert.type"),
        ("params", {"lr": 1}, "o.cnn.params or o.bert.params"),
        ("lr", 0.1, "o.cnn.params.lr or o.bert.params.lr"),
    ],
)
def test_an_option_of_one_component_says_where_it_is_written(key, value, meant):
    @dataclass
    class Config:
        o: dict[str, Component] = field(default_factory=dict)

    with pytest.raises(ConfigError, match=rf"^o\.{key}: belongs to one component; write {meant}$"):
        schema.merge(Config, {"o": {"cnn": {"type": "sgd"}, "bert": {"type": "sgd"}, key: value}})


@pytest.fixture
def mine():
    """Register a subclass as `mine`, for one test."""
    before = dict(catalogue.REGISTRY)

    def register(kind, name, **members):
        base = registry.get(kind, name)
        getattr(registry, f"register_{kind}")("mine")(type("Mine", (base,), members))

    yield register
    catalogue.REGISTRY.clear()
    catalogue.REGISTRY.update(before)


def test_a_data_set_under_another_name_tells_its_own(mine, tmp_path):
    mine("builder", "coco")
    builder = registry.build("builder", "mine", {"use": {}}, "dataset_config.mine", data_dir=tmp_path)
    assert (builder.name, builder.key) == ("mine", "dataset_config.mine")
    with pytest.raises(UserError, match=r"^dataset_config\.mine\.splits: is empty; include datasets/coco/defaults\.yaml"):
        builder.samples("train")


def test_a_model_under_another_name_tells_its_own_keys(mine):
    mine("model", "pixelbert")
    context = {"vocab_size": 9, "pad_token_id": 0, "heads": {}}
    small = {"type": "bert", "params": {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 3}}
    node = {"image_encoder": {"type": "resnet18"}, "text_encoder": small}
    with pytest.raises(ConfigError) as error:
        registry.build("model", "mine", node, "model_config.mine", **context)
    assert error.value.key == "model_config.mine.text_encoder.params.num_attention_heads"
    small["params"] |= {"num_attention_heads": 2, "max_position_embeddings": 4}
    node |= {"position_embedding": "2d", "max_grid_size": 2}
    net = registry.build("model", "mine", node, "model_config.mine", **context)
    with pytest.raises(UserError, match=r"^model_config\.mine\.max_grid_size=2: an image gives a grid of 4 × 1 pixels"):
        net._position_embeddings(torch.zeros(1, 4, dtype=torch.long), (4, 1))
    with pytest.raises(UserError, match=r"raise model_config\.mine\.text_encoder\.params\.max_position_embeddings$"):
        net.embed_texts(torch.zeros(1, 5, dtype=torch.long))


def test_tasks_processors_and_precisions_tell_where_they_stand(mine, tmp_path):
    mine("task", "vqa")
    with pytest.raises(UserError, match=r"^task_config\.mine\.metric: no metric is registered as 'none'"):
        registry.build("task", "mine", {"metric": "none"}, "task_config.mine", processors={"answers": []})
    catalogue.REGISTRY.pop(("pixelbert_plugin", "tasks", "mine"))
    mine("task", "nlvr2")
    task = registry.build("task", "mine", None, "task_config.mine", processors={})
    assert registry.place_of(task) == registry.Place("mine", "task_config.mine")
    with pytest.raises(UserError, match=r"^elsewhere\.text\.params\.vocabulary='.*': the folder holds neither"):
        registry.build("processor", "bert_tokenizer", {"vocabulary": str(tmp_path)}, "elsewhere.text.params")
    with pytest.raises(UserError, match=r"^elsewhere\.answers\.params\.vocabulary='.*': is empty"):
        (tmp_path / "answers.txt").write_text("")
        registry.build("processor", "answers", {"vocabulary": str(tmp_path / "answers.txt")}, "elsewhere.answers.params")
    mine("precision", "bf16")
    precision = registry.build("precision", "mine", None, "precision_config.mine", device=torch.device("cpu"))
    assert precision.description["precision"] == "mine"


def test_a_component_built_by_hand_has_its_class_for_a_name():
    assert registry.key_of(Inner(), "depth") == "Inner.depth" and registry.place_of(Inner()).name == "inner"


def test_a_file_that_is_imported_under_two_names_registers_one_component(mine, tmp_path):
    """As env.user_dir, and by a plugin that derives from what is in it."""
    file = tmp_path / "base_of_mine.py"
    file.write_text(
        "from pixelbert_plugin import register_metric\n\n\n"
        "@register_metric('mine')\ndef metric(prediction, answers):\n    return 1.0\n"
    )
    plugins.load_files([file])
    assert registry.location(registry.get("metric", "mine")).endswith("base_of_mine.py:4")
    code, scope = compile(file.read_text(), str(file), "exec"), {"__name__": "base_of_mine"}
    exec(code, scope)
    assert registry.get("metric", "mine") is scope["metric"]
    with pytest.raises(UserError, match=r"'mine' is registered twice: by .*base_of_mine\.py:4 and by .*test_registry\.py"):
        registry.register_metric("mine")(lambda prediction, answers: 0.0)
