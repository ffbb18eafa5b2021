"""Decode every image of a data folder in parallel, for `pixelbert-data check images=all`."""

import concurrent.futures
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from pixelbert_plugin.data.images import BadImageError
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.system.linux import end_with_parent, num_cores
from pixelbert_plugin.system.progress import TimeLeft

CHUNK = 32  # images that a process is given at a time
NO_VERDICT = "the process that read it ended"


class DecodedImages:
    """Decodes each image once, however many splits have it, and remembers the bad ones. `console` shows the time left."""

    def __init__(self, processor: ImageProcessor, console: Console, num_processes: int | None = None):
        self._processor, self._console = processor, console
        self._num_processes = num_processes or num_cores()
        self._done: set[Path] = set()
        self.bad: dict[Path, str] = {}  # why each cannot be read, in one line

    def decode(self, paths: list[Path], title: str) -> list[Path]:
        """The bad ones of `paths`."""
        todo = [path for path in paths if path not in self._done]
        chunks = [todo[at : at + CHUNK] for at in range(0, len(todo), CHUNK)]
        with TimeLeft(self._console, f"{title}: {len(todo):,} images", has_bar=True) as progress:
            progress.begin(len(todo))
            for chunk, verdicts in self._verdicts(chunks):
                self._done.update(chunk)
                self.bad |= verdicts
                progress.advance(len(chunk))
        return [path for path in paths if path in self.bad]

    def _verdicts(self, chunks: list[list[Path]]) -> Iterator[tuple[list[Path], dict[Path, str]]]:
        """Each chunk and why some of it are bad. A decoder that ends its process is found image by image, in a new one."""
        lost: list[list[Path]] = []
        for chunk, future in self._submitted(chunks, self._num_processes):
            try:
                yield chunk, future.result()
            except BrokenProcessPool:
                lost.append(chunk)
        for chunk in lost:
            verdicts: dict[Path, str] = {}
            for path in chunk:
                for _, future in self._submitted([[path]], 1):
                    try:
                        verdicts |= future.result()
                    except BrokenProcessPool:
                        verdicts[path] = f"{path}: {NO_VERDICT}"
            yield chunk, verdicts

    def _submitted(self, chunks: list[list[Path]], num_processes: int) -> Iterator[tuple[list[Path], Future[dict[Path, str]]]]:
        """Each chunk with its future, as they are done. Left early (Ctrl-C), what has not begun is dropped."""
        pool = self._pool(num_processes)
        try:
            futures = {pool.submit(partial(_bad_ones, self._processor), chunk): chunk for chunk in chunks}
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _pool(self, num_processes: int) -> Executor:
        if sys.platform != "linux":  # elsewhere a plugin's processor cannot be sent to another process
            return ThreadPoolExecutor(num_processes)
        return ProcessPoolExecutor(num_processes, multiprocessing.get_context("fork"), _prepare_process)


def _prepare_process() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides
    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what native libraries remark; the verdict has the reason


def _bad_ones(processor: ImageProcessor, paths: list[Path]) -> dict[Path, str]:
    bad = {}
    for path in paths:
        try:
            processor.decode(path)
        except BadImageError as error:
            bad[path] = str(error)
    return bad
