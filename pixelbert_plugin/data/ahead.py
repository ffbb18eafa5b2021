"""Batches made ready for the model, one ahead: two batches' images on the device, however many an update has."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache

import torch

from pixelbert_plugin.types import Batch


def one_ahead(batches: Iterable[Batch], make_ready: Callable[[Batch], Batch], device: torch.device) -> Iterator[Batch]:
    """Each batch as `make_ready` gives it. On CUDA the next one is made in a stream of its own while the model computes; on a
    CPU, where the two would only share the cores, each when it is asked for.

    Who iterates lets go of a batch before asking for the next: in its memory the one after the next is made.
    """
    if device.type != "cuda":
        yield from map(make_ready, batches)
        return
    computing, beside = torch.cuda.current_stream(device), _beside(device)
    ahead: list[tuple[Batch, torch.cuda.Event]] = []
    for batch in batches:
        # What was let go of may still be read by work launched until now, and by none launched later. Waiting for that here,
        # in place of `record_stream`, lets the allocator reuse it however far the host is ahead of the device.
        beside.wait_stream(computing)
        with torch.cuda.stream(beside):
            ahead.append((make_ready(batch), beside.record_event()))
        if len(ahead) == 2:
            yield _waited_for(computing, *ahead.pop(0))
    for made in ahead:
        yield _waited_for(computing, *made)


def _waited_for(computing: torch.cuda.Stream, batch: Batch, made: torch.cuda.Event) -> Batch:
    computing.wait_event(made)
    return batch


@cache
def _beside(device: torch.device) -> torch.cuda.Stream:
    """One for the whole run: the allocator keeps memory by stream."""
    return torch.cuda.Stream(device)
