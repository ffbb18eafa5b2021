"""TensorBoard's event files, in `<run>/tensorboard`; `update` is their step throughout."""

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pixelbert_plugin import registry
from pixelbert_plugin.interfaces import Tracker
from pixelbert_plugin.types import TrackedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "tensorboard"  # of the run's
FINAL = "final"  # before the name of a metric of the evaluation after the training


@registry.register_tracker("tensorboard")
class TensorBoard(Tracker):
    """Event files for TensorBoard: scalars, texts, pictures, and the options with final metrics under HParams."""

    def __init__(self) -> None:
        self._writer: Any = None
        self._update = 0  # the last one

    def begin(self, run: TrackedRun) -> None:
        """Events past the resumed update are hidden by TensorBoard's own mark. Raises OSError where they cannot be written."""
        from torch.utils.tensorboard import SummaryWriter

        threading.excepthook = _quiet_writer_thread
        self._update = run.resumed_update
        self._writer = SummaryWriter(str(run.folder / FOLDER), purge_step=run.resumed_update + 1)
        self._writer.add_text("config", f"```yaml\n{run.config}\n```", 0)
        used = {key.removeprefix("used."): value for key, value in run.options.items() if key.startswith("used.")}
        self._writer.add_text("used", "  \n".join(f"{name}: {value}" for name, value in used.items()), 0)
        for summary in hparams(run):
            self._writer.file_writer.add_summary(summary)

    def scalars(self, values: dict[str, float], update: int) -> None:
        self._update = max(self._update, update)
        for name, value in values.items():
            self._writer.add_scalar(_chart(name), value, update)

    def texts(self, values: dict[str, str], update: int) -> None:
        for name, text in values.items():
            self._writer.add_text(name, text, update)

    def picture(self, name: str, figure: "Figure", update: int) -> None:
        self._writer.add_figure(name, figure, update)

    def final(self, metrics: dict[str, float]) -> None:
        self.scalars({f"{FINAL}/{name}": value for name, value in metrics.items() if "[" not in name}, self._update)

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def hparams(run: TrackedRun) -> Iterable[Any]:
    """The summaries that TensorBoard's HParams read: what was changed first, since it sorts by `differs`, then by name; and the
    scalars that are its metrics. torch's own function has neither a `differs` nor metrics without a value."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    kinds = {bool: api_pb2.DATA_TYPE_BOOL, str: api_pb2.DATA_TYPE_STRING}
    infos = []
    for name in dict.fromkeys((*run.changed, *run.options)):
        kind = kinds.get(type(run.options[name]), api_pb2.DATA_TYPE_FLOAT64)
        infos.append(api_pb2.HParamInfo(name=name, type=kind, differs=name in run.changed))
    metrics = [api_pb2.MetricInfo(name=api_pb2.MetricName(tag=_chart(name))) for name in run.metrics]
    start = plugin_data_pb2.SessionStartInfo()
    for name, value in run.options.items():
        field = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
        setattr(start.hparams[name], field, value)
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
    for tag, field, content in (
        (metadata.EXPERIMENT_TAG, "experiment", experiment),
        (metadata.SESSION_START_INFO_TAG, "session_start_info", start),
        (metadata.SESSION_END_INFO_TAG, "session_end_info", end),
    ):
        held: dict[str, Any] = {field: content}
        data = plugin_data_pb2.HParamsPluginData(version=metadata.PLUGIN_DATA_VERSION, **held)
        plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=data.SerializeToString())
        marks = SummaryMetadata(plugin_data=plugin)
        yield Summary(value=[Summary.Value(tag=tag, metadata=marks, tensor=metadata.NULL_TENSOR)])


def _chart(name: str) -> str:
    """A kind of question may have a slash ("yes/no"), which would nest the chart."""
    return name.replace("yes/no", "yes-no")


def _quiet_writer_thread(error: threading.ExceptHookArgs) -> None:
    """TensorBoard's writer thread fails on a full disk; the main thread gets that error too, and tells it in one line."""
    if type(error.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(error)
