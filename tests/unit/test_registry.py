"""The registry: names, origins, duplicates, options."""

from dataclasses import dataclass, field

import pytest

from pixelbert_plugin import registry, schema
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.schema import Component, ConfigError, component


def test_every_builtin_the_design_names_is_registered():
    assert registry.names("model") == ["pixelbert"]
    expected = {"resnet18", "resnet50", "resnet101", "resnext152_32x4d", "resnext152_32x8d", "bert"}
    assert expected <= set(registry.names("encoder"))
    assert {"fp32", "bf16"} <= set(registry.names("precision"))
    assert {"sgd", "adamw"} <= set(registry.names("optimizer"))
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
    assert config.image_encoder.params == {"weights": None, "norm": "trainable", "max_pool": True}


def test_component_without_options_refuses_any():
    with pytest.raises(ConfigError, match="takes no options"):
        registry.configure("metric", "vqa_accuracy", {"k": 3}, "m")


def test_check_of_the_dataclass_itself_is_reported_with_its_key():
    with pytest.raises(ConfigError) as error:
        registry.configure("model", "pixelbert", {"num_sampled_pixels": 0}, "model_config.pixelbert")
    assert str(error.value).startswith("model_config.pixelbert.num_sampled_pixels: 0 is invalid: must be at least 1")
