"""Writing a checkpoint beside the training, which only waits until its tensors are copied."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from torch.distributed.tensor import DTensor

from pixelbert_plugin.distributed.parallel import local
from pixelbert_plugin.distributed.processes import Processes


class Background:
    """One thread that does one job at a time, and the memory that the tensors of its job are copied to.

    The memory, once more what weights and optimizers take, is kept: new memory would take longer to get than to fill. In every
    process, and in each in the same order, since jobs talk to each other through `processes`, on a way of their own.
    """

    def __init__(self, processes: Processes):
        self.processes = processes.apart()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future[None] | None = None
        self._copies: dict[str, Tensor] = {}

    def copy(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors, whole or sharded, as they are now, in main memory: valid until the next call, which waits."""
        self.wait()
        self._copies = {name: self._copy(value, self._copies.get(name)) for name, value in tensors.items()}
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # of copies that do not wait
        return self._copies

    @staticmethod
    def _copy(value: Tensor, former: Tensor | None) -> Tensor:
        if former is None or former.shape != value.shape or former.dtype != value.dtype:
            if isinstance(value, DTensor):  # what it takes to have one of the GPUs' in main memory
                return BlockingAsyncStager().stage({"tensor": value})["tensor"]
            former = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
        local(former).copy_(local(value), non_blocking=True)
        return former

    def start(self, job: Callable[[], None]) -> None:
        """Begin a job, after the one before it. Raises what that one did."""
        self.wait()
        self._job = self._thread.submit(job)

    def wait(self) -> None:
        """Until the job is done. Raises what it did, once."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def close(self) -> None:
        """End the thread; `wait` comes before."""
        self._thread.shutdown()
