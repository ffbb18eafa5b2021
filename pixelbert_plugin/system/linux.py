"""What is asked of the operating system; where it has no answer, the nearest one."""

import ctypes
import os
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
PARENT_PIPE = "PIXELBERT_PLUGIN_PARENT_PIPE"  # environment variable: the pipe that a process is to end with


def end_with_parent() -> None:
    """Have this process killed when its parent ends, however that ends: nothing is left that computes or holds a lock."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def num_cores() -> int:
    """The cores that this process may use (taskset and containers allow fewer than there are), where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_pipe(reader: int) -> None:
    """Have this process, and its group where it leads one, killed when the last writer of a pipe is gone: whoever started
    it holds that end and need not live to close it. Works wherever there are pipes."""

    def watch() -> None:
        while os.read(reader, 1):
            pass
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end_with_pipe", daemon=True).start()


def huge_pages() -> None:
    """Have torch take large tensors in pages of 2 MB where Linux has them: on a CPU those of each update are new memory, and a
    step spends up to a sixth of its time on getting it in pages of 4 kB. Before torch's first tensor; who has set the variable
    already decides."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
