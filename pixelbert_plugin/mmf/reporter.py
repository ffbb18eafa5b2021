"""MMF's reporter for data sets of which some lack a split, as Visual Genome has no validation split in pre-training."""

from typing import Any

from mmf.common.test_reporter import TestReporter

from pixelbert_plugin.mmf.data import AbsentDataset

NAME = "pixelbert"


class SplitReporter(TestReporter):
    """Passes over the data sets that do not have the split; MMF's own asks every one for its batches."""

    def next_dataset(self, flush_report: bool = True) -> bool:
        found = super().next_dataset(flush_report)
        while found and self._is_absent(self.current_datamodule):
            found = super().next_dataset(flush_report=False)
        return found

    def _is_absent(self, datamodule: Any) -> bool:
        return isinstance(getattr(datamodule, f"{self.dataset_type}_dataset"), AbsentDataset)
