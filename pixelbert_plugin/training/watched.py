"""What trackers are given of a run: what it is, by its options, and where its model looks."""

from pixelbert_plugin import config as configuration
from pixelbert_plugin.checkpoint.checkpoints import TrainState
from pixelbert_plugin.config.changed import changed
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.evaluation.split_evaluator import SplitEvaluator
from pixelbert_plugin.parts import Parts, used
from pixelbert_plugin.training.looks import Looker
from pixelbert_plugin.types import TrackedRun


def looker_of(parts: Parts, evaluator: SplitEvaluator, count: int) -> Looker | None:
    """What looks at the model for trackers, at `count` samples of each validation; None: the model is sharded."""
    if not count or parts.training.parallel == "fsdp":
        return None
    names = parts.data.splits["val"].parts if "val" in parts.data.splits else ()
    loaders = {f"val/{name}": evaluator.loader("val", name) for name in names}
    return Looker(parts.model, parts.task, parts.precision, loaders, count)


def tracked_run(config: RunConfig, parts: Parts, state: TrainState, yaml: str, monitor: str) -> TrackedRun:
    """`yaml`: the configuration as it is saved; `monitor`: the metric that chooses the best checkpoint."""
    leaves = configuration.leaves(config) | {f"used.{name}": value for name, value in used(parts).items()}
    plain = {key: value if isinstance(value, int | float | bool | str) else str(value) for key, value in leaves.items()}
    finals = [
        f"final/{parts.data.own_name(split, name)}/{parts.task.main_metric}"
        for split, mixture in parts.data.splits.items()
        for name in (mixture.parts if split != "train" else ())
    ]
    path = parts.job.folder.path
    return TrackedRun(
        name=path.resolve().name,
        folder=path,
        resumed_update=state.update,
        options=plain,
        changed=changed(config),
        config=yaml,
        metrics=(*finals, monitor, f"{monitor.rpartition('/')[0]}/loss", "train/loss"),
    )
