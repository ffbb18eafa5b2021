"""What `import pixelbert_plugin` offers, what it costs, and a RunConfig made in Python."""

import ast
import copy
import dataclasses
import importlib.metadata
import importlib.util
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import pixelbert_plugin
from pixelbert_plugin import config as configuration
from pixelbert_plugin.config.options import CheckpointConfig, EnvConfig, RunConfig, TrainingConfig
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry.schema import Component

KINDS = (
    "builder checkpoint_reader encoder explanation metric model optimizer precision processor scheduler task tracker".split()
)


def python(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_import_loads_nothing_heavy_and_takes_a_tenth_of_a_second_at_most():
    code = """
import sys, time
start = time.perf_counter()
import pixelbert_plugin
dir(pixelbert_plugin), pixelbert_plugin.__version__
took = time.perf_counter() - start
heavy = {"torch", "yaml", "catalogue", "omegaconf", "numpy", "transformers", "rich"} & set(sys.modules)
print(round(took, 3) < 0.1, sorted(heavy))
"""
    assert "True []\n" in [python(code) for _ in range(3)]  # another process may have taken the processor from one of them


def test_registering_loads_no_torch():
    code = "import sys; from pixelbert_plugin import UserError, register_builder; print('torch' in sys.modules)"
    assert python(code) == "False\n"


def test_every_name_is_there_as_what_it_is_said_to_be():
    names = {f"register_{kind}" for kind in KINDS}
    names |= {"Sample", "Batch", "ModelOutput", "Builder", "Task", "run", "load", "RunConfig", "UserError", "__version__"}
    assert names <= set(pixelbert_plugin.__all__) <= set(dir(pixelbert_plugin))
    tree = ast.parse((ROOT / "pixelbert_plugin/__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))  # TYPE_CHECKING: what mypy and editors see
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert set(typed) == set(pixelbert_plugin.__all__) - {"__version__"}
    for name, module in typed.items():
        assert getattr(pixelbert_plugin, name) is getattr(sys.modules[module], name), name
    with pytest.raises(AttributeError, match="no attribute 'Sampel'"):
        pixelbert_plugin.Sampel  # noqa: B018


ORDERS = [
    "import pixelbert_plugin.run; from pixelbert_plugin import run",
    "from pixelbert_plugin import run; import pixelbert_plugin.run",
    "from pixelbert_plugin.run import export; from pixelbert_plugin import run",
    "import pixelbert_plugin; pixelbert_plugin.run; from pixelbert_plugin.run import run",
]


@pytest.mark.slow
def test_run_is_the_function_in_whatever_order_it_and_its_module_are_imported():
    """In one interpreter, which forgets the package and its components in between."""
    code = f"""
import sys, catalogue
for imports in {ORDERS!r}:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pixelbert_plugin"]:
        del sys.modules[name]
    catalogue.REGISTRY.clear()
    names = {{}}
    exec(imports, names)
    exec("import pixelbert_plugin, pixelbert_plugin.run as third; from pixelbert_plugin.run import run as same", names)
    run = names["run"]
    print(run is names["same"] is names["pixelbert_plugin"].run is names["third"], callable(run), run.__module__)
"""
    assert python(code, "-W", "error") == "True True pixelbert_plugin.run\n" * len(ORDERS)


def test_run_as_it_was_documented_works_with_a_notice():
    with pytest.warns(DeprecationWarning, match="is the function now"), pytest.raises(UserError, match="no such file"):
        pixelbert_plugin.run.run("nowhere.yaml")


def test_the_reference_has_every_public_name_and_none_that_there_is_not():
    text = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: (\S+)$", text, re.M)
    for name in named:
        module, _, member = name.rpartition(".")
        assert _is_module(name) or hasattr(importlib.import_module(module), member), name
    shown = {name.rpartition(".")[2] for name in named} | set(re.findall(r"`(register_\w+)`", text))
    for name in set(pixelbert_plugin.__all__) - {"__version__"} - shown:  # of a module that is shown whole
        assert getattr(pixelbert_plugin, name).__module__ in named, name


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_version_stands_in_one_place():
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert pixelbert_plugin.__version__ not in text
    done = subprocess.run([sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == pixelbert_plugin.__version__ == importlib.metadata.version("pixelbert_plugin")
    assert (ROOT / "pixelbert_plugin/py.typed").is_file()


def made() -> RunConfig:
    return RunConfig(
        datasets=["vqa2"],
        training=TrainingConfig(max_updates=3, timeout_seconds=60),
        env=EnvConfig(data_dir="~/pictures", save_dir="save/mine"),
        optimizer={"cnn": Component("sgd"), "transformer": Component("adamw", {"lr": 1e-4})},
    )


COPIES = {
    "made": lambda config: config,
    "copied": copy.copy,
    "copied deep": copy.deepcopy,
    "pickled": lambda config: pickle.loads(pickle.dumps(config)),
    "replaced": lambda config: dataclasses.replace(config, checkpoint=CheckpointConfig(max_to_keep=2)),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_configuration_made_in_python_works_as_one_of_a_file(how, tmp_path):
    """Compared with the same values read from YAML."""
    config = COPIES[how](made())
    file = tmp_path / "mine.yaml"
    file.write_text(
        "datasets: [vqa2]\ntraining: {max_updates: 3, timeout_seconds: 60}\nenv: {data_dir: ~/pictures, save_dir: save/mine}\n"
        "optimizer: {cnn: {type: sgd}, transformer: {type: adamw, params: {lr: 1e-4}}}\n"
    )
    read = configuration.resolve(file)
    for function in (configuration.dump, configuration.leaves, configuration.to_annotated_yaml):
        function(config)  # before it is complete too
    assert configuration.to_yaml(config, tmp_path)
    assert configuration.resolve(config) is config
    assert config.env.data_dir == read.env.data_dir == str(Path.home() / "pictures")
    assert config.env.cache_dir == read.env.cache_dir and not config.env.cache_dir.startswith("~")
    for function in (configuration.dump, configuration.leaves):
        assert function(config) == function(read)
    assert configuration.to_yaml(config, tmp_path) == configuration.to_yaml(read, tmp_path)
    lines = configuration.to_annotated_yaml(config).splitlines()
    assert len(lines) == len(configuration.to_annotated_yaml(read).splitlines())
    assert all(line.endswith(("# default", ":")) for line in lines)
    again = COPIES[how](config)  # complete, and copied once more
    before = configuration.dump(again)
    assert configuration.dump(configuration.complete(again)) == before == configuration.dump(read)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: setattr(config.training, "batch_size", "many"), "training.batch_size: 'many' is invalid"),
        (lambda config: setattr(config, "datasets", []), "datasets: [] is invalid: name at least one data set"),
        (lambda config: config.model_config.update(pixelbert={"num_sampeld_pixels": 1}), "did you mean num_sampled_pixels"),
        (lambda config: setattr(config.env, "save_dir", None), "env.save_dir: is not set, and a RunConfig made in Python"),
        (lambda config: setattr(config.env, "user_dir", "~/no/such"), f"env.user_dir='{Path.home()}/no/such': no such file"),
    ],
)
def test_a_mistake_in_it_is_one_line_before_anything_is_done(change, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = made()
    change(config)
    with pytest.raises(UserError) as caught:
        pixelbert_plugin.run(config)
    assert message in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"console": ["training.seed=1"]}, "console=\\['training.seed=1'\\]: is no rich.console.Console; .* overrides="),
        ({"overrides": "training.seed=1"}, "overrides='training.seed=1': must be a list of texts"),
        ({"overrides": [1]}, "overrides=\\[1\\]: must be a list of texts"),
        ({"overrides": {"training.seed": 1}}, "overrides={'training.seed': 1}: is a mapping; give a list"),
        ({"config": None}, "config=None: must be a RunConfig or the path"),
        ({"config": {"run_type": "train"}}, "config={'run_type': 'train'}: must be a RunConfig or the path"),
    ],
)
def test_arguments_of_another_type_are_one_line(given, message):
    with pytest.raises(UserError, match=message):
        pixelbert_plugin.run(**{"config": "projects/pixelbert/configs/vqa2.yaml", **given})


@pytest.mark.parametrize("path", [None, 3, "", " "])
def test_load_of_no_path_is_one_line(path):
    with pytest.raises(UserError, match=f"path={path!r}: must be the path of a save folder, a checkpoint or an exported file"):
        pixelbert_plugin.load(path)


def test_overrides_belong_to_a_file():
    with pytest.raises(UserError, match="are for a configuration file"):
        pixelbert_plugin.run(made(), overrides=["training.seed=2"])
    assert list(inspect.signature(pixelbert_plugin.run).parameters) == ["config", "console", "overrides"]
