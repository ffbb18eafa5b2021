"""The tracker of docs/tracking.md, as it stands there, against a stand-in for MLflow that notes its calls."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

from pixelbert_plugin import registry
from unit.training.test_tracking import RECORD, made_events, tracked

CODE = re.search(r"```python\n# mlflow_tracker.py\n(.*?)```", (ROOT / "docs/tracking.md").read_text(encoding="utf-8"), re.S)[1]


@pytest.fixture
def calls(monkeypatch, tmp_path):
    noted, stand_in = [], ModuleType("mlflow")
    for name in "set_experiment start_run log_params log_text log_metrics log_figure end_run".split():
        setattr(stand_in, name, lambda *given, _name=name, **named: noted.append((_name, given, named)))
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    (tmp_path / "mlflow_tracker.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("mlflow_tracker")

    yield noted
    del sys.modules["mlflow_tracker"]
    import catalogue

    catalogue.REGISTRY.pop(("pixelbert_plugin", "trackers", "mlflow"), None)


def test_the_documents_tracker_is_25_lines_and_gets_all_that_is_told(calls, tmp_path):
    assert len(CODE.strip().splitlines()) + 1 <= 26  # with the line that names the file
    events = made_events(tmp_path, registry.build("tracker", "mlflow"))
    events.train(RECORD, {"text": 0.5})
    events.evaluation("val/x", {"accuracy[kind=yes/no]": 0.25}, 3)
    events.close()
    assert [
        name for name, *_ in calls
    ] == "set_experiment start_run log_params log_text log_metrics log_metrics end_run".split()
    logged = [(given[0], named["step"]) for name, given, named in calls if name == "log_metrics"]
    assert logged[0][0]["train/loss"] == 0.5 and logged[0][0]["padding/text"] == 0.5 and logged[0][1] == 1
    assert logged[1] == ({"val/x/accuracy_kind_yes/no_": 0.25}, 3)


def test_what_it_leaves_out_does_nothing(calls, tmp_path):
    tracker = registry.build("tracker", "mlflow")
    tracker.begin(tracked(tmp_path, changed=("training.seed",)))
    before = len(calls)
    tracker.texts({"a": "b"}, 1)
    tracker.final({"x": 1.0})
    tracker.flush()
    assert len(calls) == before and ("log_params", ({"training.seed": "2"},), {}) in calls


def test_the_document_names_what_there_is():
    text = (ROOT / "docs/tracking.md").read_text(encoding="utf-8")
    from pixelbert_plugin.comparing.options import CompareConfig

    for name in vars(CompareConfig()):
        assert re.search(rf"`{name}=", text), name
    assert Path(ROOT / "docs/planning.md").is_file()
