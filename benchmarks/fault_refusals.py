"""What is refused in one line, leaving all as it was; what a user's own component does wrong; another batch size."""

import json
import os
import pickle
import shutil
import signal
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace

from fault_disks import last
from fault_table import Bench, Row
from fault_tools import INTERVAL, Course, contents, ended, flip, is_one_line, wait_until

from pixelbert_plugin.checkpoint.checkpoints import digest_of

PLUGIN = """
import time
from pathlib import Path
from pixelbert_plugin import registry
from pixelbert_plugin.processors.image import ImageProcessor
from pixelbert_plugin.tasks.vqa import VqaTask

@registry.register_task("raising")
class Raising(VqaTask):
    def metrics(self, results):
        raise ValueError("a metric of the user's")

@registry.register_task("unpicklable")
class Unpicklable(VqaTask):
    def prepare(self, batch, seeds):
        super().prepare(batch, seeds)
        batch.targets["odd"] = lambda: None

decode = ImageProcessor.decode

def stalling(self, path):
    while Path(STALL).exists():
        time.sleep(0.1)
    return decode(self, path)

ImageProcessor.decode = stalling
"""


def refused(fault: str, course: Course, *told: str) -> Row:
    """Status 2, one line that names what is wrong, and every file that was in the folder is as it was."""
    before = contents(course.folder)
    status = ended(course.start(), 120)
    right = status == 2 and is_one_line(course.said()) and all(part in course.said() for part in told)
    return Row(fault, 1, int(right and before.items() <= contents(course.folder).items()), None, None, last(course))


def exported(bench: Bench) -> Iterator[Row]:
    course, file = bench.evaluated("evaluated"), bench.folder / "flipped.safetensors"
    assert course.with_options("--export", str(file)).finish() == 0
    file.write_bytes(flip(file.read_bytes(), 0.9))
    other = replace(course.with_options("run_type=val", f"checkpoint.resume_file={file}"), folder=bench.folder / "flipped")
    yield refused("exported file with one bit flipped", other, str(file))


def forged(bench: Bench) -> Iterator[Row]:
    """The best checkpoint's index leaves a tensor open, its digest made right; or a pipe stands for its tensors."""
    for what in ("a forged index with right digests", "a pipe stands for a file"):
        course = bench.evaluated("evaluated").copy("forged")
        best = (course.folder / "checkpoints" / "best").resolve()
        if "pipe" in what:
            (best / "__0_0.safetensors").unlink()
            os.mkfifo(best / "__0_0.safetensors")
        else:
            index = pickle.loads((best / ".metadata").read_bytes())
            next(entry for entry in index.state_dict_metadata.values() if hasattr(entry, "chunks")).chunks.clear()
            (best / ".metadata").write_bytes(pickle.dumps(index))
            names = json.loads((best / "digests.json").read_text())
            (best / "digests.json").write_text(json.dumps({name: digest_of(best / name) for name in names}))
        yield refused(f"best checkpoint: {what}", course.with_options("run_type=val"), "checkpoint")


def again(bench: Bench) -> Iterator[Row]:
    """The saved configuration is run again; a folder with a stranger's files is overwritten."""
    course = bench.evaluated("evaluated").copy("again")
    rerun = replace(course, config=str(course.folder / "config.yaml")).with_options("checkpoint.resume=false")
    yield refused("save/x/config.yaml run again as it is", rerun, "holds a run already")
    theirs = [course.folder / name for name in ("notes.txt", "checkpoints/mine.bin", "predictions/mine.json")]
    for path in theirs:
        path.write_text("mine")
    expected = course.losses()
    over = course.with_options("checkpoint.resume=false", "env.overwrite=true")
    status, kept = over.finish(), sum(path.exists() and path.read_text() == "mine" for path in theirs)
    note = f"{kept} of {len(theirs)} such files kept"
    yield Row(
        "env.overwrite=true beside a stranger's files", 1, int(kept == 3), None, not status and over.losses() == expected, note
    )


def batches(bench: Bench) -> Iterator[Row]:
    """Half an epoch by batches of 6, half by 12, half by 3, each a resume: one and a half epochs in all."""
    course, statuses = Course(bench.data, bench.folder / "batches", 1, ["training.max_updates=null"]), []
    for epochs, batch in ((0.5, 6), (1.0, 12), (1.5, 3)):
        part = course.with_options(f"training.max_epochs={epochs}", f"training.batch_size={batch}")
        statuses.append(part.with_options("training.micro_batch_size=3", "training.evaluation_interval=null").finish())
    records = course.records()
    steps = [record["samples"] for record in records]
    right = statuses == [0, 0, 0] and abs(records[-1]["epoch"] - 1.5) * 200 < 3 and steps == sorted(set(steps))
    note = f"{len(records)} updates, {steps[-1]} samples, {records[-1]['epoch']:.2f} epochs"
    yield Row("batches of 6, then 12, then 3, half an epoch each", 1, int(right), 0, None, note)


def raising(bench: Bench) -> Iterator[Row]:
    course = with_plugin(bench, "raising", "task=raising")
    yield refused("a metric that raises, before update 1", course, "odd.py", "a metric of the user's")
    late = replace(course, folder=bench.folder / "late").with_options("training.sanity_check=false")
    status = ended(late.start(), 300)
    right = status == 2 and is_one_line(late.said()) and late.saved_update() == late.update() > 0
    yield Row("a metric that raises, in an evaluation", 1, int(right), late.update() - late.saved_update(), None, last(late))


def unpicklable(bench: Bench) -> Iterator[Row]:
    course = with_plugin(bench, "unpicklable", "task=unpicklable")
    yield refused("a target that cannot be pickled", course, "cannot be sent from a data-loader worker")


def stalled(bench: Bench) -> Iterator[Row]:
    course, stall = with_plugin(bench, "stalled"), bench.folder / "stall"
    process = course.start()
    wait_until(lambda: course.update() > INTERVAL, process)
    stall.write_text("")
    time.sleep(5)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    status = ended(process, 60)
    note = f"exit status {status} after {time.monotonic() - began:.0f} s: {last(course)}"
    repeated = course.update() - course.saved_update()
    stall.unlink()
    yield bench.row("an image that never comes, and SIGTERM meanwhile", course, 1, int(status == 75), repeated, note)


def with_plugin(bench: Bench, name: str, *options: str) -> Course:
    file = bench.folder / "odd.py"
    file.write_text(PLUGIN.replace("STALL", repr(str(bench.folder / "stall"))))
    return bench.course(name, bench.updates, 1).with_options(f"env.user_dir={file}", *options)


def odd_images(bench: Bench) -> Iterator[Row]:
    """Every training image is a pipe, or its header says 100,000 × 100,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(300_001))  # its first row
    chunks = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, pixels)]
    huge = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    for what, told in {"a pipe": "is a named pipe", "a header of 100,000 x 100,000 pixels": "max_pixels"}.items():
        data = bench.folder / "odd_images_world"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(bench.data, data)
        for path in (data / "coco").rglob("*train2014*.jpg"):
            path.unlink()
            if what == "a pipe":
                os.mkfifo(path)
            else:
                path.write_bytes(huge)
        course = Course(data, bench.folder / f"odd_images_{told[-4:]}", 1, [f"training.max_updates={bench.updates}"])
        status = ended(course.start(), 120)
        right = status == 2 and is_one_line(course.said()) and told in course.said()
        yield Row(f"{what} in the images' place", 1, int(right), None, None, last(course))


def descriptors(bench: Bench) -> Iterator[Row]:
    course = bench.course("descriptors", 2 * INTERVAL, 1)
    course.before = ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh"]
    course.options.append("training.num_workers=2")
    status = ended(course.start(), 200)
    right = status == 0 or (status == 2 and is_one_line(course.said()) and "limit is 40" in course.said())
    note = "trained" if status == 0 else last(course)
    yield Row("ulimit -n 40, two workers", 1, int(right), None, None, note)
