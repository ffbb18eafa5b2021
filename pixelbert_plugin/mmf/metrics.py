"""Our tasks' metrics as one of MMF's (`evaluation.metrics: [pixelbert]`): over a whole split, each sample once."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch.distributed as dist
from mmf.modules.metrics import BaseMetric
from mmf.utils.distributed import is_dist_initialized

from pixelbert_plugin.mmf.setting import Setting
from pixelbert_plugin.tasks.base import Result

NAME = "pixelbert"


@dataclass(frozen=True)
class SampleScores:
    """A sample's result in MMF's report; `is_skipped` where its image could not be read."""

    result: Result
    is_skipped: bool


class TaskMetrics(BaseMetric):
    """All metrics of the run's task: `val/pixelbert_vqa2/pixelbert/accuracy`, …"""

    def __init__(self) -> None:
        super().__init__(NAME)
        self.required_params = ["results"]

    def calculate(self, sample_list: Any, model_output: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        results = unique_results(model_output.get("results", []))
        return Setting.of_run().task.metrics(results) if results else {}


def unique_results(rows: Iterable[SampleScores], keep_skipped: bool = False) -> list[Result]:
    """Results of all processes, each sample once: the last batches of several processes are filled up."""
    rows = list(rows)
    if is_dist_initialized():
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, rows)
        rows = list(chain.from_iterable(gathered))
    found = {row.result.sample.sample_id: row for row in rows}
    return [row.result for row in found.values() if keep_skipped or not row.is_skipped]
