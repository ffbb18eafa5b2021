"""What is asked of the operating system; where it has no answer, the nearest one."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def end_with_parent() -> None:
    """Have this process killed when its parent ends, however that ends: nothing is left that computes or holds a lock."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def num_cores() -> int:
    """The cores that this process may use (taskset and containers allow fewer than there are), where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
