"""The folder of a run: who may write into it, and the files beside checkpoints and events.

save/<name>/  config.yaml  log.jsonl  evaluations.jsonl  results.json  skipped_images_<split>.json
              predictions/  scores/  checkpoints/  tensorboard/  .lock
"""

import contextlib
import errno
import fcntl
import glob
import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pixelbert_plugin.checkpoint.checkpoints import Checkpoints
from pixelbert_plugin.config import saved
from pixelbert_plugin.errors import UserError, replacing, writing

logger = logging.getLogger(__name__)

HOLDS_A_RUN = ("config.yaml", "log.jsonl", "checkpoints", "tensorboard")
FILES = ("config.yaml", "log.jsonl", "evaluations.jsonl", "results.json", "skipped_images_*.json", "wandb_run_id.txt")
PREDICTIONS = ("json", "tsv", "safetensors")  # kinds of files, each named after its split and data set
FOLDERS = ("checkpoints", "tensorboard", "predictions", "scores")
LOCK = ".lock"
LOCK_SECONDS = 5  # how long a run that is just ending may still hold the folder


class RunFolder:
    """`env.save_dir` of one run."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: int | None = None  # an open file: closing any other of the same file would release the lock

    def claim(self, may_hold_run: bool, is_training: bool, job_id: str | None = None) -> bool:
        """Refuse a folder that another run trains in, that holds a run (unless it is resumed, overwritten or evaluated) or
        that cannot be written. Returns whether the run it holds is of this job of torchrun, `job_id`: then it is resumed.
        """
        is_same_job = is_training and job_id is not None and self._read_lock().get("job") == job_id
        if is_training:
            self._claim_lock(job_id)
        if not is_same_job:
            self._claim_content(may_hold_run)
        return is_same_job

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        """Let other runs train in the folder; a process that ends, however it does, lets them too."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _read_lock(self) -> dict[str, Any]:
        """Who trains, or trained last, in the folder."""
        try:
            content = json.loads((self.path / LOCK).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def _claim_lock(self, job_id: str | None) -> None:
        """Take the folder's lock, which the operating system keeps for the life of this process."""
        owner = self._read_lock()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):  # a file system without locks
                    logger.warning("%s: cannot be locked (%s): let no other run train in it", self.path, error.strerror)
                    break
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    who = f"process {owner.get('pid', '?')} on {owner.get('host', 'another machine')}"
                    raise UserError(
                        f"env.save_dir={str(self.path)!r}: {who} trains in it now; wait for it, stop it, or choose another "
                        "env.save_dir"
                    ) from error
                time.sleep(0.1)
        self._lock = descriptor
        with writing(self.path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "job": job_id}).encode(), 0)

    def _claim_content(self, may_hold_run: bool) -> None:
        held = [name for name in HOLDS_A_RUN if (self.path / name).exists()]
        if held and not may_hold_run:
            raise UserError(
                f"env.save_dir={str(self.path)!r}: holds a run already ({', '.join(held)}); add checkpoint.resume=true to go "
                "on with it, env.overwrite=true to delete it, or choose another env.save_dir"
            )
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            probe = self.path / f".writable.{os.getpid()}"
            probe.write_text("")
            probe.unlink()

    def clear(self) -> None:
        """Delete what a former run wrote, and nothing else that may lie there: links to folders are not followed.

        Raises UserError where such a link would keep what must go.
        """
        for name in FOLDERS:
            if (self.path / name).is_symlink():
                raise UserError(
                    f"{self.path / name}: is a symbolic link, and env.overwrite=true deletes nothing outside its folder; "
                    "empty it yourself, or choose another env.save_dir"
                )
        with writing(self.path):
            Checkpoints(self.path / "checkpoints", 1).clear()
            predictions = [f"*_{glob.escape(name)}.{kind}" for name in self._datasets() for kind in PREDICTIONS]
            _remove(self.path, FILES)
            _remove(self.path / "tensorboard", ["events.out.tfevents.*"])
            _remove(self.path / "predictions", predictions)
            for folder in (self.path / "scores").glob("*"):
                _remove(folder, ["block_*", ".block_*", "fingerprint"])
            _remove(self.path / "scores", [])

    def require_own_config(self) -> None:
        """Raises UserError where config.yaml is somebody's recipe, which the run's own would replace."""
        found = self._config()
        if found is not None and not saved.is_whole(found):
            raise UserError(
                f"{self.path / 'config.yaml'}: was not written by a run, and would be replaced; choose another env.save_dir, "
                "or give it another name"
            )

    def _config(self) -> Any:
        try:
            return yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return None

    def _datasets(self) -> list[str]:
        """The data sets of the run that the folder holds, which its predictions are named after."""
        names = self._config()["datasets"] if saved.is_whole(self._config()) else []
        return [str(name) for name in names] if isinstance(names, list) else []

    def write(self, name: str, text: str) -> Path:
        """Write a file whole or not at all."""
        path = self.path / name
        with writing(path):
            path.parent.mkdir(exist_ok=True)  # not its parents: a folder that was moved away is not made anew
            with replacing(path) as aside:
                aside.write_text(text, encoding="utf-8")
        return path

    def write_json(self, name: str, content: Any) -> Path:
        return self.write(name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def add_results(self, results: dict[str, Any]) -> Path:
        """Merge into results.json, so that a later run_type=test adds to what training wrote, and one beside it too."""
        with _locked(self.path):
            return self._merge_results(results)

    def read_results(self) -> dict[str, Any]:
        """What results.json holds; {} where there is none that can be read."""
        try:
            found = json.loads((self.path / "results.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _merge_results(self, results: dict[str, Any]) -> Path:
        path, former = self.path / "results.json", self.read_results()  # a derived file: written anew where it is broken
        again = [key for key in results if key in former and key != "training_seconds"]
        replaced = [key for key in again if json.dumps(former[key]) != json.dumps(results[key])]  # NaN is not equal to itself
        if replaced:
            logger.info("%s: %s was %s and is %s now", path, replaced[0], former[replaced[0]], results[replaced[0]])
        return self.write_json("results.json", {**former, **results})


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process has this folder locked, and keep it so meanwhile; where there are no locks, go on without."""
    with writing(folder):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove(folder: Path, patterns: Iterable[str]) -> None:
    """Delete the files of a folder that match, and the folder where it is left empty; a link to a folder stays as it is."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for pattern in patterns:
        for path in folder.glob(pattern):
            if path.is_symlink() or path.is_file():
                path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
