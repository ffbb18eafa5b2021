"""TensorBoard's HParams, read as TensorBoard itself reads them."""

from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.hparams import backend_context
from tensorboard.util.tensor_util import make_ndarray

from pixelbert_plugin import registry
from unit.training.test_tracking import tracked

OPTIONS = {"checkpoint.max_to_keep": 2, "training.seed": 3, "model": "pixelbert", "training.bucket_by_size": True}


@pytest.fixture
def experiment(tmp_path):
    tracker = registry.build("tracker", "tensorboard")
    tracker.begin(
        tracked(tmp_path, options=OPTIONS, changed=("training.seed",), metrics=("final/val/x/accuracy", "train/loss"))
    )
    tracker.scalars({"train/loss": 2.0}, 7)
    tracker.final({"val/x/accuracy": 0.25, "val/x/accuracy[kind=yes/no]": 1.0})
    tracker.close()
    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = backend_context.Context(SimpleNamespace(data_provider=provider))
    request = RequestContext()
    metadata = context.hparams_metadata(request, str(tmp_path))
    found = context.experiment_from_metadata(request, str(tmp_path), True, metadata, [])
    return found, multiplexer


def test_what_was_changed_comes_first_and_final_metrics(experiment):
    found, multiplexer = experiment
    assert found.hparam_infos[0].name == "training.seed"
    assert {info.name for info in found.hparam_infos} == set(OPTIONS)
    assert [info.name.tag for info in found.metric_infos] == ["final/val/x/accuracy", "train/loss"]
    values = multiplexer.Tensors("tensorboard", "final/val/x/accuracy")
    assert [(event.step, float(make_ndarray(event.tensor_proto))) for event in values] == [(7, 0.25)]
    assert not any("kind=" in tag for tag in multiplexer.Runs()["tensorboard"]["tensors"])  # they would bury it


def test_values_keep_their_types(tmp_path):
    from tensorboard.plugins.hparams import metadata

    from pixelbert_plugin.trackers.tensorboard import hparams

    _, start, _ = hparams(tracked(tmp_path, options=OPTIONS))
    content = start.value[0].metadata.plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    kinds = {name: value.WhichOneof("kind") for name, value in values.items()}
    expected = {"checkpoint.max_to_keep": "number_value", "model": "string_value", "training.bucket_by_size": "bool_value"}
    assert expected.items() <= kinds.items() and values["training.seed"].number_value == 3
