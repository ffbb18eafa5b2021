"""Two ways of the same work, timed in turn in one process: the ratio of their median processor times."""

import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class Ratio:
    """What a pair of ways took: seconds of processor time, the median of `rounds`."""

    what: str
    naive: float
    ours: float
    rounds: int
    note: str = ""

    @property
    def times(self) -> float:
        return self.naive / self.ours

    def __str__(self) -> str:
        figures = f"{self.naive:>10.3f} s{self.ours:>10.3f} s{self.times:>9.2f}{self.rounds:>8}"
        return f"{self.what:<44}{figures}  {self.note}".rstrip()


def machine() -> str:
    """What the figures were taken with."""
    cpu = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return f"torch {torch.__version__}, Python {platform.python_version()}, {cpu}"


HEAD = f"{'what':<44}{'naive':>12}{'ours':>12}{'ratio':>9}{'rounds':>8}  note"


def own_time() -> float:
    """Processor time of all threads; on a GPU, which works meanwhile, the time that passed."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def compare(
    what: str,
    naive: Callable[[], object],
    ours: Callable[[], object],
    rounds: int,
    note: str = "",
    clock: Callable[[], float] = own_time,
    is_warm: bool = False,
) -> Ratio:
    """Each once to warm up, unless both have run (`is_warm`), then `rounds` times in turn, so that a slow phase of the machine
    meets both. With 0 rounds there are no times: ours is run once, to see that it does."""
    if not is_warm:
        ours()
    if not rounds:
        return Ratio(what, math.nan, math.nan, 0, note)
    if not is_warm:
        naive()
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for seconds, work in zip(taken, (naive, ours), strict=True):
            began = clock()
            work()
            seconds.append(clock() - began)
    return Ratio(what, *map(statistics.median, taken), rounds, note)


def largest_difference(naive: torch.Tensor, ours: torch.Tensor, bound: float = 1e-3) -> float:
    """The largest one, relative to the largest value. Raises ValueError where it is no rounding: ratios would say nothing."""
    found = float((naive - ours).abs().max() / naive.abs().max())
    if not found < bound:
        raise ValueError(f"outputs differ by {found:.1e}: the two ways do not compute the same")
    return found
