"""A callback of MMF's that writes the loss of every update, to be loaded by `plugins=[mmf_recorder]`."""

import json
from pathlib import Path

from mmf.common.registry import registry
from mmf.trainers.callbacks.base import Callback


@registry.register_callback("recorder")
class Recorder(Callback):
    def __init__(self, config, trainer, path):
        super().__init__(config, trainer)
        self.path = Path(path)

    def on_update_end(self, **kwargs):
        losses = kwargs["report"].losses  # summed over the update's batches, each divided by their number
        record = {"update": self.trainer.num_updates, "loss": sum(float(value) for value in losses.values())}
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")
