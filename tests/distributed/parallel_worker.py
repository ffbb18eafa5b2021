"""Under torchrun on 2 processes: one update of a model with an unused head, and one that a single process uses."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from pixelbert_plugin.commands.command import leave
from pixelbert_plugin.distributed.parallel import Losses, local, shard, wrap
from pixelbert_plugin.distributed.processes import connected
from pixelbert_plugin.precision.native import Fp32
from pixelbert_plugin.training.recomputation import recompute_blocks


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.used, self.unused, self.some = (nn.Linear(3, 3) for _ in range(4))

    def shard_units(self):
        return [self.body]

    def forward(self, batch):
        hidden = torch.tanh(self.body(batch.x))
        outputs = {"used": self.used(hidden), "unused": self.unused(hidden)}
        return outputs | ({"some": self.some(hidden)} if batch.has_some else {})


class Squares:
    chosen = None

    def loss(self, output, batch):
        return {"squares": sum(value.square().sum() for name, value in output.items() if name != "unused")}


def micro_batches(kind):
    """Four of three rows. With DDP only the first has what the head `some` is for; FSDP asks for the same heads everywhere."""
    x = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(1))
    return [SimpleNamespace(x=x[index], has_some=index == 0 or kind == "fsdp") for index in range(4)]


def gradients(net):
    found = {}
    for name, parameter in net.named_parameters():
        gradient = parameter.grad
        if gradient is not None:
            gradient = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
        found[name] = None if gradient is None else gradient.tolist()
    return found


if __name__ == "__main__":
    precision = Fp32(torch.device("cpu"))
    with connected(torch.device("cpu"), 60, True) as processes:
        result = {}
        for kind, is_again in (("ddp", False), ("fsdp", False), ("ddp", True), ("fsdp", True)):
            net = Net()
            if kind == "fsdp":
                shard(net)
            if is_again:
                recompute_blocks(net, "net")
            parallel = wrap(kind, Losses(net, Squares(), precision), processes)
            own = micro_batches(kind)[2 * processes.rank :][:2]
            for index, batch in enumerate(own):
                with parallel.accumulating(is_last=index == 1):
                    (sum(parallel(batch).values()) * processes.world_size).backward()
                if index == 0 and kind == "ddp" and not is_again:
                    result["before_the_last"] = local(net.used.weight.grad).tolist()
            result[f"{kind}_again" if is_again else kind] = gradients(net)
        (Path(sys.argv[1]) / f"{processes.rank}.json").write_text(json.dumps(result))
    leave(0)
