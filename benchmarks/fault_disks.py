"""Full disks, at every stage of a run; a folder that cannot be locked; damaged checkpoints."""

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace

from fault_table import Bench, Row
from fault_tools import INTERVAL, Course, contents, ended, fill, flip, is_one_line, small_disk, wait_until

from pixelbert_plugin.checkpoint.checkpoints import problem

# imported at the interpreter's start where its folder is on PYTHONPATH: a file system without locks, as NFS can be
NO_LOCKS = """
import errno, fcntl
def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.lockf = fcntl.flock = refuse
"""


def disk(bench: Bench) -> Iterator[Row]:
    with small_disk(bench.folder / "small_disk", "600m") as disk:
        if disk is None:
            return
        course = Course(bench.data, disk / "run", 2, [f"training.max_updates={bench.updates}"])
        process = course.start()
        wait_until(lambda: course.saved_update() >= INTERVAL, process)
        ballast = fill(disk, 20_000_000)  # less than a checkpoint takes
        status, reached = ended(process), course.update()
        told = "cannot be written" in course.output() and "Traceback" not in course.output().split("cannot be written")[0]
        is_whole = all(problem(path) is None for path in course.checkpoints()) and course.saved_update() > 0
        ballast.unlink()
        yield bench.row(
            "disk full while a checkpoint is written",
            course,
            1,
            int(told and is_whole and status != 0),
            reached - course.saved_update(),
        )


def damage(bench: Bench) -> Iterator[Row]:
    start = bench.course("damage", bench.updates)
    process = start.start()
    wait_until(lambda: start.saved_update() >= 2 * INTERVAL, process)
    os.killpg(process.pid, signal.SIGKILL)
    ended(process)
    changes = {"torn": lambda content: content[: len(content) // 2], "with one bit flipped": flip}
    for what, change in changes.items():
        survived, repeated, files = 0, 0, [path.name for path in start.checkpoints()[-1].iterdir()]
        for name in files:
            course = start.copy(f"damage_{what.split()[0]}_{files.index(name)}")
            newest = course.saved_update()
            file = course.checkpoints()[-1] / name
            file.write_bytes(change(file.read_bytes()))
            process = course.start()
            wait_until(lambda course=course: "resuming from" in course.output(), process)
            told = f"checkpoint {file.parent} is invalid" in course.output()
            survived += told and f"after update {newest - INTERVAL}" in course.output()
            repeated = max(repeated, newest - (newest - INTERVAL))
            os.killpg(process.pid, signal.SIGKILL)
            ended(process)
        yield bench.row(f"newest checkpoint {what}, each of its files", course, len(files), survived, repeated)


def disk_log(bench: Bench) -> Iterator[Row]:
    """Not a byte is left from just after a checkpoint on: the log, TensorBoard's events, then the next checkpoint fail."""
    with small_disk(bench.folder / "log_disk", "600m") as disk:
        if disk is None:
            return
        printed = bench.folder / "log_disk.out"
        course = Course(bench.data, disk / "run", 1, [f"training.max_updates={bench.updates}"], printed=printed)
        process = course.start()
        wait_until(lambda: course.saved_update() >= INTERVAL, process)
        ballast = fill(disk)
        status, reached = ended(process, 300), course.update()
        right = status == 2 and is_one_line(course.said()) and all(problem(path) is None for path in course.checkpoints())
        repeated = max(0, reached - course.saved_update())
        ballast.unlink()
        yield bench.row("disk full: log and events, until the next checkpoint", course, 1, int(right), repeated)


def disk_results(bench: Bench) -> Iterator[Row]:
    """A finished run is evaluated again where its predictions, or its results, cannot be written."""
    places = {"predictions": ("run/predictions", "run/predictions/"), "results.json": ("run", "run/results.json: ")}
    for what, (place, part) in places.items():
        course = bench.evaluated("evaluated").copy_to(bench.folder / f"disk_{what}" / "run")
        expected, kept = course.results(), course.copy("kept")
        shutil.rmtree(course.folder.parent / place)
        with small_disk(course.folder.parent / place, "400m") as disk:
            if disk is None:
                return
            shutil.copytree(kept.folder.parent / place.replace("run", "kept"), disk, symlinks=True, dirs_exist_ok=True)
            before = contents(course.folder)
            ballast = fill(disk)
            refused = replace(course.with_options("run_type=val"), printed=bench.folder / f"disk_{what}.out")
            status = refused.finish()
            ballast.unlink()
            note = last(refused)
            told = is_one_line(refused.said()) and part in note
            right = status == 2 and told and contents(course.folder) == before
            same = refused.finish() == 0 and course.results() == expected
            yield Row(f"disk full: {what}", 1, int(right), None, same, note)


def disk_cache(bench: Bench) -> Iterator[Row]:
    """The cache of annotations has no room, or its folder is none."""
    with small_disk(bench.folder / "cache_disk", "1m") as disk:
        if disk is None:
            return
        fill(disk)
        plain = bench.evaluated("evaluated")
        course = bench.course("cache", 2 * INTERVAL, 1)
        course.options += [f"env.cache_dir={disk}/cache"]
        status = course.finish()
        yield Row("disk full: annotation cache", 1, int(status == 0), None, course.losses() == plain.losses(), last(course))


def disk_export(bench: Bench) -> Iterator[Row]:
    with small_disk(bench.folder / "export_disk", "1m") as disk:
        if disk is None:
            return
        course = bench.evaluated("evaluated")
        export = course.with_options("--export", str(disk / "model.safetensors"))
        status = export.finish()
        right = status == 2 and is_one_line(export.said()) and not list(disk.iterdir())
        yield Row("disk full: export", 1, int(right), None, None, last(export))


def disk_blocks(bench: Bench) -> Iterator[Row]:
    """The score blocks of a retrieval have no room: the evaluation goes on without them."""
    course = retrieval(bench)
    expected = course.results()
    shutil.rmtree(course.folder / "scores")
    with small_disk(course.folder / "scores", "4k") as disk:
        if disk is None:
            return
        fill(disk)
        again = course.with_options("run_type=test")
        status = again.finish()
        same = status == 0 and {key: again.results()[key] for key in expected} == expected
        told = "a killed evaluation will score again" in again.said()
        yield Row("disk full: score blocks", 1, int(told and status == 0), None, same, last(again))


def block(bench: Bench) -> Iterator[Row]:
    """Every kept block of scores with one bit flipped, evaluated again."""
    course = retrieval(bench)
    expected, blocks = course.results(), sorted((course.folder / "scores").glob("*/block_*.npy"))
    for path in blocks:
        path.write_bytes(flip(path.read_bytes()))
    again = course.with_options("run_type=test")
    status = again.finish()
    told = again.said().count("is not as it was written; it is scored again")
    same = status == 0 and {key: again.results()[key] for key in expected} == expected
    yield Row("one bit flipped in each block of scores", len(blocks), told, None, same, "scored again")


def best(bench: Bench) -> Iterator[Row]:
    """The best checkpoint is damaged, and asked for."""
    course = bench.evaluated("evaluated")
    export = ("--export", str(bench.folder / "damaged.safetensors"))
    for options in (("run_type=val",), export):
        damaged = course.copy("best_damaged")
        before = (damaged.folder / "results.json").read_bytes()
        tensors = max((damaged.folder / "checkpoints" / "best").iterdir(), key=lambda path: path.stat().st_size)
        tensors.write_bytes(flip(tensors.read_bytes()))
        asked = damaged.with_options(*options)
        status = asked.finish()
        told = is_one_line(asked.said()) and "checkpoint" in last(asked)
        right = status == 2 and told and (damaged.folder / "results.json").read_bytes() == before
        yield Row(f"best checkpoint with one bit flipped, {options[0]}", 1, int(right), None, None, last(asked))


def no_locks(bench: Bench) -> Iterator[Row]:
    """A folder on a file system without locks (NFS): said, and trained in."""
    folder = bench.folder / "no_locks_module"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(NO_LOCKS)
    course = bench.course(
        "no_locks", bench.updates, 1, environment={"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
    )
    yield bench.row("a folder without locks", course, 1, 1, 0, "")
    assert "cannot be locked" in course.output()


def retrieval(bench: Bench) -> Course:
    """A short training of retrieval with its final evaluation."""
    course = bench.course("retrieval", 1, 1, config="projects/pixelbert/configs/mini/flickr30k_retrieval.yaml")
    course.options += [
        "run_type=train_test",
        "training.batch_size=2",
        "task_config.retrieval={num_negatives: 3, num_hardest: 2}",
    ]
    if not course.results():
        assert course.finish() == 0, course.output()[-3000:]
    return course


def last(course: Course) -> str:
    """The last line that says what was wrong, cut to the table's width."""
    lines = [line for line in course.said().splitlines() if "error: " in line or "annot be written" in line]
    return lines[-1].partition("error: ")[2][:200] or lines[-1][:200] if lines else ""
