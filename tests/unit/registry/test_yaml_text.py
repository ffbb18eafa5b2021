"""Text stays as it is typed, in files and on the command line; a dump reads back equal; another type drops old params."""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_plugin import config as configuration
from pixelbert_plugin.config.interpolation import interpolated
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import schema, yaml_text
from pixelbert_plugin.registry.schema import Component, ConfigError, FilePath, component
from pixelbert_plugin.registry.yaml_text import Typed

AS_TYPED = ["2024_11_25", "010", "1.10", "1:30", "no", "1e5", "0x10", "0o7", "on", "2024-11-25", "1_000", ".inf", "True", "=x"]
AS_TYPED += ["exp", "größe", "run 😀", "50%", "a=b", "a,b", "x.y", "-5", "+1", "1.", "nul", "NaN", "12:30:45", "<<", "y"]
ONLY_TYPED = ["exp #1", "[a", "a: b", "{x}", "{a: 1}", "[a, b]", " blank ", "a\tb", "@x", "%x", "`x", "*x", "&x", "!x", "? x"]
ONLY_TYPED += ["- x", "| x", "'half", 'half"', "a 'b'", "}", "]", ",", "#", "x:", "- ", "\\n"]


def save_dir(tmp_path: Path, content: str, *overrides: str) -> str | None:
    file = tmp_path / "a.yaml"
    file.write_text("datasets: [vqa2]\n" + content, encoding="utf-8")
    return configuration.load(str(file), list(overrides)).env.save_dir


@pytest.mark.parametrize("text", AS_TYPED + ONLY_TYPED)
def test_a_text_option_keeps_what_was_typed(tmp_path, text):
    assert save_dir(tmp_path, "", f"env.save_dir={text}") == text


@pytest.mark.parametrize("text", AS_TYPED)
def test_a_text_option_keeps_what_a_file_has(tmp_path, text):
    assert save_dir(tmp_path, f"env:\n  save_dir: {text}\n") == text
    assert save_dir(tmp_path, f"env: {{save_dir: '{text}'}}\n") == text


@pytest.mark.parametrize("null", ["", "~", "null", "NULL"])
def test_unquoted_null_is_none_and_quoted_null_is_text(tmp_path, null):
    assert save_dir(tmp_path, f"env: {{save_dir: {null}}}\n") == "save/a"
    assert save_dir(tmp_path, "", f"env.save_dir={null}") == "save/a"
    if null:
        assert save_dir(tmp_path, f"env: {{save_dir: '{null}'}}\n") in (null, str(Path.home()))
        assert save_dir(tmp_path, "", f'env.save_dir="{null}"') in (null, str(Path.home()))


@dataclass(kw_only=True)
class Everything:
    text: str = "x"
    maybe: str | None = None
    names: list[str] = field(default_factory=list)
    by_name: dict[str, str] = field(default_factory=dict)
    choice: Literal["none", "2d", "off"] = "none"
    number: int = 1
    rate: float = 1
    flag: bool = False
    either: str | int | float | None = None
    pair: tuple[int, int] = (1, 2)
    anything: Any = None
    path: FilePath | None = None
    part: Component = component("encoder", "inner", size="big", depth="deep")


def read(content: str) -> Everything:
    return schema.merge(Everything, yaml_text.parse(content))


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ("names: [010, 1e5, no, '1', 1:30]", "names", ["010", "1e5", "no", "1", "1:30"]),
        ("by_name: {val: 2014, 1: on}", "by_name", {"val": "2014", "1": "on"}),
        ("choice: 2d", "choice", "2d"),
        ("choice: off", "choice", "off"),
        ("number: 010", "number", 10),
        ("number: 0x1F", "number", 31),
        ("number: 1_000", "number", 1000),
        ("number: '7'", "number", 7),
        ("rate: 1e5", "rate", 1e5),
        ("rate: 1e-4", "rate", 1e-4),
        ("rate: 3", "rate", 3.0),
        ("rate: -.inf", "rate", float("-inf")),
        ("flag: yes", "flag", True),
        ("flag: off", "flag", False),
        ("flag: TRUE", "flag", True),
        ("either: dynamic", "either", "dynamic"),
        ("either: 128", "either", 128),
        ("either: '128'", "either", "128"),
        ("either: 1e3", "either", 1000.0),
        ("either: ~", "either", None),
        ("pair: [3, 4]", "pair", (3, 4)),
        ("anything: {a: [1, 1e3, no, null, 0o7, 1:30, '1'], b: true}", "anything", None),
        ("maybe: 'null'", "maybe", "null"),
        ("text: |\n  a\n  b\n", "text", "a\nb\n"),
        ("text: ''", "text", ""),
    ],
)
def test_the_type_of_a_field_decides_what_a_scalar_means(content, name, value):
    if name == "anything":  # by YAML 1.2's core schema
        value = {"a": [1, 1000.0, "no", None, 7, "1:30", "1"], "b": True}
    found = getattr(read(content), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("number: 1:30", "number: '1:30' is invalid: must be a whole number"),
        ("number: 1.5", "number: 1.5 is invalid: must be a whole number"),
        ("number: true", "number: True is invalid: must be a whole number"),
        ("number: " + "9" * 5000, "is invalid: is too large"),
        ("number: 0x" + "f" * 9999, "is invalid: is too large"),
        ("rate: 1e999", "is invalid: is too large"),
        ("rate: fast", "rate: 'fast' is invalid: must be a number"),
        ("flag: maybe", "flag: 'maybe' is invalid: must be true or false"),
        ("text: ~", "text: None is invalid: must be text"),
        ("text: [a]", "text: ['a'] is not a single value"),
        ('text: "\\ud800"', "is invalid: holds a character that is no Unicode text"),
        ('path: "a\\0b"', "is invalid: a path cannot hold the character NUL"),
        ("path: " + "a" * 300, "is invalid: is too long for a path"),
        ("choice: 3d", "choice: '3d' is invalid: must be none, 2d or off"),
        ("pair: [1]", "pair: [1] is invalid: must have 2 items"),
        ("names: x", "names: 'x' is not a list"),
        ("part: big", "part: 'big' is not a mapping of options (key: value); write part.type=big"),
        ("part: {typ: x}", "part.typ: unknown key; did you mean type?"),
        ("anything: " + "9" * 5000, "anything: "),
        ("part.type: x", "part.type: unknown key; in a file write it as part: {type: …}"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_key(content, message):
    with pytest.raises(ConfigError) as error:
        read(content)
    assert message in str(error.value) and len(str(error.value)) < 500


HOSTILE = [
    *AS_TYPED,
    *ONLY_TYPED,
    "",
    "~",
    "null",
    "\0",
    "\x07",
    "\x85",
    "\u2028",
    "\ufeff",
    "a\n b\n\n",
    "\r\n",
    "'",
    '"',
    "\\",
]
HOSTILE += [
    "${env.data_dir}",
    "\\${a}",
    "a${",
    "\t",
    " ",
    "- a\n- b",
    "--- x",
    "...",
    "\x1b[31m",
    "\ud7ff",
    "1e5 ",
    " 010",
    "x" * 5000,
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(HOSTILE)
SCALARS = st.one_of(TEXT, st.integers(-(2**62), 2**62), st.floats(allow_nan=False), st.booleans(), st.none())
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)


@settings(max_examples=100, deadline=None)
@given(text=TEXT, names=st.lists(TEXT, max_size=3), tree=TREES)
def test_a_dump_reads_back_equal(text, names, tree):
    keys = {key for key in _keys(tree) if not key.strip()}
    before = Everything(text=text, maybe=text, names=names, by_name={"a": text}, anything=None if keys else tree)
    content = yaml_text.dump(dataclasses.asdict(before))
    resolved = interpolated(yaml_text.parse(content), dataclasses.asdict(Everything()))
    assert dataclasses.asdict(schema.merge(Everything, resolved)) == dataclasses.asdict(before)
    if "${" not in content:  # and by YAML 1.1's reader
        assert yaml.safe_load(content) == {**dataclasses.asdict(before), "pair": [1, 2]}
    one_line = yaml_text.dump(text, is_flow=True)
    assert "\n" not in one_line


def test_quoted_text_beside_an_interpolation_stays_text():
    content = """text: a\nnames: ["", "null", "010", "${text}", 'x${text}']\nanything: ["5", 5, "no", "${text}"]"""
    resolved = interpolated(yaml_text.parse(content), dataclasses.asdict(Everything()))
    found = schema.merge(Everything, resolved)
    assert found.names == ["", "null", "010", "a", "xa"]
    assert found.anything == ["5", 5, "no", "a"]


def test_references_that_double_at_each_step_are_refused():
    chain = "\n".join(f"  a{step}: '${{anything.a{step + 1}}}${{anything.a{step + 1}}}'" for step in range(40))
    with pytest.raises(schema.ConfigError, match="stands for more than 100,000 characters"):
        interpolated(yaml_text.parse(f"anything:\n{chain}\n  a40: x"), dataclasses.asdict(Everything()))
    short = "anything: {a: '${anything.b[1]}${anything.b[1]}', b: [x, '${anything.c}${anything.c}'], c: yes}"
    found = interpolated(yaml_text.parse(short), dataclasses.asdict(Everything()))
    assert schema.merge(Everything, found).anything == {"a": "yesyesyesyes", "b": ["x", "yesyes"], "c": "yes"}


def _keys(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [*tree, *(key for value in tree.values() for key in _keys(value))]
    return [key for value in tree for key in _keys(value)] if isinstance(tree, list) else []


@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_a_text_typed_in_quotes_or_without_reaches_a_text_option(text):
    is_special = yaml_text.is_null(Typed(text)) or text.strip()[:1] in ("'", '"')
    if not is_special:
        assert schema.merge(Everything, {"text": Typed(text), "maybe": Typed(text)}).maybe == text
    quoted = "'" + text.replace("'", "''") + "'"
    if text.isprintable():  # YAML's single quotes hold nothing else
        assert schema.merge(Everything, {"text": Typed(quoted)}).text == text


def test_home_is_put_in_for_a_tilde_in_every_path_and_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = schema.merge(Everything, {"path": Typed("~/x"), "text": Typed("~/x"), "names": Typed("[~/x]")})
    assert (found.path, found.text, found.names) == (f"{tmp_path}/x", "~/x", ["~/x"])
    (tmp_path / "inner.yaml").write_text("training: {seed: 5}\n")
    (tmp_path / "top.yaml").write_text(
        "includes: [~/inner.yaml]\ndatasets: [vqa2]\nenv: {user_dir: ~/plugin}\n"
        "dataset_config: {vqa2: {karpathy: ~/k.json, splits: {val: [{questions: ~/q.json}]}}}\n"
        "processors: {text: {params: {vocabulary: ~/v}}, answers: {params: {vocabulary: ~/a}}}\n"
        "model_config: {pixelbert: {image_encoder: {params: {weights: ~/w}}, text_encoder: {params: {weights: ~/b}}}}\n"
    )
    options = ["env.data_dir=~/d", "env.save_dir=~/s", "checkpoint.pretrained=~/p", "checkpoint.resume_file=~/r"]
    config = configuration.complete(configuration.load("~/top.yaml", options))
    assert config.training.seed == 5
    assert config.env.cache_dir == f"{tmp_path}/.cache/pixelbert_plugin" and config.env.user_dir == f"{tmp_path}/plugin"
    assert "~" not in str(dataclasses.asdict(config))
    again = configuration.complete(config)  # what is read once more, or saved and loaded, is the same
    assert "~" not in str(dataclasses.asdict(again))
    values = configuration.dump(again)
    kept = (values["env"]["cache_dir"], values["env"]["user_dir"], values["processors"]["text"]["params"]["vocabulary"])
    assert kept == ("~/.cache/pixelbert_plugin", "~/plugin", "~/v")
    assert values["dataset_config"]["vqa2"]["splits"]["val"][0]["questions"] == "~/q.json"
    saved = configuration.to_yaml(again, tmp_path / "s")
    assert str(tmp_path) not in saved  # no path of this machine
    (tmp_path / "saved.yaml").write_text(saved)
    loaded = configuration.complete(configuration.load(str(tmp_path / "saved.yaml")))
    assert configuration.dump(loaded)["env"] == values["env"] | {"overwrite": False}
    assert loaded.env.user_dir == f"{tmp_path}/plugin"


# files


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("training: {seed: 1}\nenv: {}\ntraining: {seed: 2}\n", "line 3: training is duplicated (it is in line 1 already)"),
        ("training:\n  seed: 1\n  seed: 2\n", "line 3: training.seed is duplicated (it is in line 2 already)"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefg", "bcdefgh", strict=True)),
            "holds more than 20,000 values",
        ),
        ("model_config: " + "{a: " * 300 + "1" + "}" * 300, "is nested deeper than 64 levels"),
        ("a: " + "[" * 5000, "is nested deeper than 64 levels"),
        ("a: &x [*x]\n", "is nested deeper than 64 levels"),
        ("a:\n\tb: 1\n", "indent with spaces"),
        ("? [a, b]\n: 1\n", "line 1: a key must be a word"),
        ("a: !!python/object/apply:os.system ['true']\n", "is not supported; write the value without it"),
        ("a: \x07\n", r"line 1: not valid YAML: the character '\x07' must be written as an escape"),
        ("- 1\n", "holds no mapping (key: value) at its top level"),
        ("", "holds no mapping"),
        (b"env: {save_dir: caf\xe9}\n", "line 1: is not UTF-8 text (byte 0xe9); save the file as UTF-8"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{}", "is a binary file, not YAML"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is a binary file, not YAML"),
        ("#" * 1_000_001, "has 1,000,001 bytes: too many for a configuration"),
    ],
)
def test_what_is_no_configuration_is_named_with_its_line(tmp_path, content, message):
    file = write(tmp_path / "a.yaml", content)
    with pytest.raises(UserError) as error:
        configuration.load(file)
    assert str(error.value).startswith(f"{file}: ") and message in str(error.value)
    with pytest.raises(UserError) as error:
        configuration.load(write(tmp_path / "top.yaml", "includes: [a.yaml]\n"))
    assert message in str(error.value)


def test_folders_pipes_and_devices_are_no_configuration(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "run").mkdir()
    write(tmp_path / "run/config.yaml", "datasets: [vqa2]\n")
    for path, message in (
        (tmp_path / "pipe.yaml", "is a pipe or device"),
        ("/dev/zero", "is a pipe or device"),
        (tmp_path, "is a folder; give the path of a YAML file"),
        (tmp_path / "run", f"did you mean config={tmp_path / 'run/config.yaml'}?"),
        ("", "no such file"),
        ("a\0b", "cannot hold the character NUL"),
        ("x" * 5000, "is too long for a path"),
    ):
        with pytest.raises(UserError, match=r"config=") as error:
            configuration.load(str(path))
        assert message in str(error.value)
    top = write(tmp_path / "top.yaml", "includes: [pipe.yaml]\n")
    with pytest.raises(UserError, match=r"pipe\.yaml: is a pipe or device, not a YAML file"):
        configuration.load(top)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, encoding):
    file = write(tmp_path / "a.yaml", "datasets: [vqa2]\nenv: {save_dir: größe}\n".encode(encoding))
    assert configuration.load(file).env.save_dir == "größe"


def test_doubled_includes_are_read_once(tmp_path):
    for level in range(40):  # 2^40 readings if each include were read again
        write(tmp_path / f"{level}.yaml", f"includes: [{level + 1}.yaml, {level + 1}.yaml]\n")
    write(tmp_path / "40.yaml", "datasets: [vqa2]\ntraining: {seed: 9}\n")
    assert configuration.load(str(tmp_path / "0.yaml")).training.seed == 9


def test_endless_includes_end(tmp_path):
    for level in range(60):
        write(tmp_path / f"{level}.yaml", f"includes: [{level + 1}.yaml]\n")
    with pytest.raises(UserError, match="nested deeper than 50 files"):
        configuration.load(str(tmp_path / "0.yaml"))


@pytest.mark.parametrize(
    "option", ["training=${x}", "training.seed=${x}", "env.save_dir=${env.save_dir}", "model_config={a: '${x}'}"]
)
def test_an_interpolation_that_cannot_be_filled_in_names_its_key(tmp_path, option):
    file = write(tmp_path / "a.yaml", "datasets: [vqa2]\n")
    with pytest.raises(UserError) as error:
        configuration.load(file, [option])
    assert str(error.value).startswith(option.partition("=")[0]) and "(set in command line)" in str(error.value)


def test_interpolations_take_text_numbers_and_sections(tmp_path):
    content = "datasets: [vqa2]\ntraining: {seed: 010, max_updates: '${training.seed}', timeout_seconds: 1e2}\n"
    content += "env: {data_dir: '010', save_dir: '${env.data_dir}/${training.device}_${training.seed}'}\n"
    content += "optimizer: {cnn: {type: sgd, params: {lr: 1e-3}}, transformer: '${optimizer.cnn}'}\n"
    config = configuration.complete(configuration.load(write(tmp_path / "a.yaml", content)))
    assert (config.training.max_updates, config.env.save_dir) == (10, "010/auto_010")
    assert config.optimizer["transformer"] == config.optimizer["cnn"] and config.optimizer["cnn"].params.lr == 1e-3


def test_merge_keys_and_anchors(tmp_path):
    content = "datasets: [vqa2]\nbase: &base {seed: 1, log_interval: 5}\ntraining:\n  <<: *base\n  seed: 2\n"
    node = yaml_text.parse(content)
    assert yaml_text.value(node["training"]) == {"seed": 2, "log_interval": 5}


# components of another type


FILE = (
    "datasets: [vqa2]\n"
    "optimizer: {cnn: {type: sgd, params: {lr: 0.5, momentum: 0.8}}, transformer: {type: adamw, params: {lr: 0.25}}}\n"
    "model_config: {pixelbert: {image_encoder: {params: {weights: IMAGENET1K_V1}}}}\n"  # of the default type, resnet50
    "scheduler: {params: {milestones: [3]}}\n"
)


def complete(tmp_path: Path, *overrides: str, file: str = FILE):
    return configuration.complete(configuration.load(write(tmp_path / "a.yaml", file), list(overrides)))


def test_another_type_leaves_the_old_params_behind(tmp_path):
    config = complete(tmp_path, "optimizer.cnn.type=adamw")
    assert config.optimizer["cnn"].params.lr == 1e-4 and not hasattr(config.optimizer["cnn"].params, "momentum")
    source = str(tmp_path / "a.yaml")
    assert configuration.left_out(config) == [("optimizer.cnn.params.lr", source), ("optimizer.cnn.params.momentum", source)]
    text = configuration.to_annotated_yaml(config)
    assert f"# left out, as its component has another type: optimizer.cnn.params.momentum ({source})" in text
    assert yaml.safe_load(text) == configuration.dump(config)
    assert configuration.source_of("optimizer.cnn.params.lr", config.sources) != source


@pytest.mark.parametrize("swapped", [False, True])
def test_the_order_of_type_and_params_on_the_command_line_does_not_matter(tmp_path, swapped):
    options = ["optimizer.cnn.params.lr=1", "optimizer.cnn.type=adamw"]
    config = complete(tmp_path, *(reversed(options) if swapped else options))
    assert config.optimizer["cnn"].type == "adamw" and config.optimizer["cnn"].params.lr == 1.0


@pytest.mark.parametrize("option", ["optimizer.cnn.type=sgd", "optimizer.cnn={type: sgd}", "optimizer={cnn: {type: sgd}}"])
def test_the_same_type_keeps_its_params(tmp_path, option):
    config = complete(tmp_path, option)
    assert config.optimizer["cnn"].params.momentum == 0.8 and not configuration.left_out(config)
    assert configuration.source_of("optimizer.cnn.params.momentum", config.sources) == str(tmp_path / "a.yaml")


def test_params_without_a_type_are_the_default_types(tmp_path):
    encoder = "model_config.pixelbert.image_encoder"
    config = complete(tmp_path)
    assert config.model_config["pixelbert"].image_encoder.params.weights == "IMAGENET1K_V1"
    config = complete(tmp_path, f"{encoder}.type=resnet18")
    assert config.model_config["pixelbert"].image_encoder.params.weights is None
    assert configuration.left_out(config) == [(f"{encoder}.params.weights", str(tmp_path / "a.yaml"))]
    config = complete(tmp_path, f"{encoder}.type=resnet50", "scheduler.type=step")
    assert config.model_config["pixelbert"].image_encoder.params.weights == "IMAGENET1K_V1"
    assert config.scheduler.params.milestones == [3.0] and not configuration.left_out(config)
    assert configuration.source_of(f"{encoder}.params.weights", config.sources) == str(tmp_path / "a.yaml")


def test_the_type_of_an_included_file_is_another_types_too(tmp_path):
    write(tmp_path / "base.yaml", FILE)
    file = "includes: [base.yaml]\noptimizer: {cnn: {type: adamw, params: {eps: 1e-6}}}\n"
    config = complete(tmp_path, "optimizer.transformer.params.lr=1", file=file)
    assert not hasattr(config.optimizer["cnn"].params, "momentum") and config.optimizer["cnn"].params.eps == 1e-6
    assert config.optimizer["transformer"].params.lr == 1.0
    assert [key for key, _ in configuration.left_out(config)] == [
        "optimizer.cnn.params.lr",
        "optimizer.cnn.params.momentum",
    ]


def test_the_default_components_own_params_go_with_their_type():
    assert read("part: {params: {size: 9}}").part == Component("inner", {"size": "9", "depth": "deep"})
    assert read("part: {type: inner}").part == Component("inner", {"size": "big", "depth": "deep"})
    assert read("part: {type: outer}").part == Component("outer", {})
