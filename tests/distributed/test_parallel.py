"""DDP and FSDP2 on two processes: the gradient of one process on all rows, exchanged once, whatever heads are used."""

import json
from pathlib import Path

import torch
from parallel_worker import Net, Squares, micro_batches
from preloaded import script, together


def single(kind: str) -> dict:
    """By hand, in one process."""
    net = Net()
    for batch in micro_batches(kind):
        sum(Squares().loss(net(batch), batch).values()).backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def test_gradients_of_two_processes_add_up_and_unused_heads_have_none(tmp_path):
    together(2, script, [Path(__file__).parent / "parallel_worker.py", tmp_path], tmp_path)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for result in ranks:
        for kind in ("ddp", "fsdp"):
            for name, gradient in single(kind).items():
                found = result[kind][name]
                if name.startswith("unused"):
                    assert gradient is None and (found is None or not torch.tensor(found).any()), (kind, name)
                else:
                    torch.testing.assert_close(torch.tensor(found), gradient, msg=f"{kind} {name}")
    # before the last micro-batch each process has its own gradient only: nothing was exchanged
    assert ranks[0]["before_the_last"] != ranks[1]["before_the_last"]
    assert ranks[0]["ddp"] == ranks[1]["ddp"]
    # with training.gradient_checkpointing the same to the last bit
    for result in ranks:
        assert result["ddp_again"] == result["ddp"] and result["fsdp_again"] == result["fsdp"]
