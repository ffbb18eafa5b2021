"""How long training stands still for a checkpoint: DCP's own writer while it waits, against a copy that is written beside it.

    python benchmarks/checkpoint.py [--rounds 5] [--hidden-size 768] > benchmarks/checkpoint.txt

A checkpoint of ResNet-50 and BERT-base with the state of SGD and Adam (1.5 GB), on one thread. What was waited for: the check
that weights are finite, torch.distributed.checkpoint's FileSystemWriter (torch.save for each tensor), SHA-256 of every file,
and fsync. Now: the check, and the copy. Times are the waiting thread's own, medians of interleaved rounds; the checkpoints of
both are read back and compared. The second row is the work of the whole checkpoint, in whichever thread.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
import torchvision
from side_by_side import HEAD, Ratio, machine
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint import restore, tensor_store
from pixelbert_plugin.checkpoint.checkpoints import (
    CheckpointMetadata,
    Checkpoints,
    TrainState,
    saved_optimizers,
    saved_weights,
)
from pixelbert_plugin.checkpoint.folder import digest_of, sync
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.training.trainer import is_finite


class Trained:
    """A model with optimizers that have made a step."""

    def __init__(self, hidden_size: int) -> None:
        torch.manual_seed(0)
        heads, inner = max(1, hidden_size // 64), 4 * hidden_size
        bert = BertConfig(hidden_size=hidden_size, num_attention_heads=heads, intermediate_size=inner)
        self.model = nn.ModuleDict({"cnn": torchvision.models.resnet50(), "bert": BertModel(bert)})
        cnn, transformer = self.model["cnn"].parameters(), self.model["bert"].parameters()
        self.optimizers = {"cnn": torch.optim.SGD(cnn, 0.01, 0.9), "transformer": torch.optim.AdamW(transformer)}
        self.precision = registry.build("precision", "fp32", {}, "p", device=torch.device("cpu"))
        for parameter in self.model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        for optimizer in self.optimizers.values():
            optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        return saved_weights(self.model, self.precision) | saved_optimizers(self.model, self.optimizers, self.precision)

    def check(self) -> None:
        assert all(is_finite(value) for value in self.model.state_dict().values() if value.is_floating_point())

    def former(self, folder: Path) -> None:
        """As it was done until version 0.1: everything is waited for."""
        assert all(value.isfinite().all() for value in self.model.state_dict().values() if value.is_floating_point())
        dcp.save(self.tensors(), checkpoint_id=folder, no_dist=True)
        for path in folder.iterdir():
            digest_of(path)
        for path in [*folder.iterdir(), folder]:
            sync(path)

    def ours(self, checkpoints: Checkpoints, update: int) -> None:
        self.check()
        metadata = CheckpointMetadata("a: 1\n", {}, {})
        checkpoints.save(self.model, self.optimizers, self.precision, TrainState(update=update), metadata)


def took(clock: Callable[[], float], work: Callable[[], object]) -> float:
    began = clock()
    work()
    return clock() - began


def compare(rounds: int, hidden_size: int, folder: Path) -> list[Ratio]:
    trained, checkpoints = Trained(hidden_size), Checkpoints(folder / "ours", 1)
    waited: tuple[list[float], list[float]] = ([], [])
    worked: tuple[list[float], list[float]] = ([], [])
    with checkpoints.beside_training():
        for number in range(rounds + 1):  # the first one gets the memory
            begins = [time.process_time()]
            waited[0].append(took(time.thread_time, lambda n=number: trained.former(folder / f"former_{n}")))
            begins.append(time.process_time())
            waited[1].append(took(time.thread_time, lambda n=number: trained.ours(checkpoints, n)))
            checkpoints.settle()
            begins.append(time.process_time())
            for seconds, begin, end in zip(worked, begins, begins[1:], strict=False):
                seconds.append(end - begin)
            difference(folder / f"former_{number}", checkpoints.of(number))
    size = sum(path.stat().st_size for path in checkpoints.of(rounds).iterdir()) / 1e9
    rows = (("training stands still", waited), ("the whole checkpoint's work", worked))
    note = f"{size:.2f} GB, {len(trained.tensors())} tensors, equal"
    return [Ratio(what, *(statistics.median(each[1:]) for each in seconds), rounds, note) for what, seconds in rows]


def difference(former: Path, ours: Path) -> None:
    """Raises ValueError where the two checkpoints hold anything else; removes the former."""
    theirs, found = tensor_store.read_all(former, ""), tensor_store.read_all(ours, "")
    if theirs.keys() != found.keys() or not all(torch.equal(theirs[name], found[name]) for name in found):
        raise ValueError("the two checkpoints differ")
    restore.read_content(ours, "checkpoint")
    for path in former.iterdir():
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved, after one to warm up")
    parser.add_argument("--hidden-size", type=int, default=768, help="of the transformer, a multiple of 64; 64 is quick")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    plugins.load()
    torch.set_num_threads(1)
    print(f"{machine()}\n\n{HEAD}")
    with tempfile.TemporaryDirectory() as folder:
        for row in compare(arguments.rounds, arguments.hidden_size, Path(folder)):
            print(row)


if __name__ == "__main__":
    main()
