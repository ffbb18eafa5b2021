"""Processes of a run that die, hang or are told to stop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from fault_table import Bench, Row
from fault_tools import (
    INTERVAL,
    SIZE_OPTIONS,
    Course,
    children_of,
    ended,
    kill,
    ranks,
    wait_for_random_moment,
    wait_until,
)

from pixelbert_plugin.checkpoint.checkpoints import problem

HANG_SECONDS = 30  # a busy machine may take ten for an update


def killed_again_and_again(
    bench: Bench, fault: str, name: str, times: int, moment: Callable[[Course, subprocess.Popen], bool]
) -> Iterator[Row]:
    """SIGKILL of one of the two ranks at a moment, then the same command again."""
    course, survived, repeated, done = bench.course(name, 4 * times + bench.updates), 0, 0, 0
    while done < times:
        process = course.start()
        if not moment(course, process):
            ended(process)
            if process.returncode == 0:
                break
            continue
        kill(bench.draw.choice(ranks(process)))
        done += 1
        status, reached = ended(process), course.update()
        is_whole = all(problem(path) is None for path in course.checkpoints())
        survived += status not in (None, 0) and is_whole
        repeated = max(repeated, reached - course.saved_update())
    yield bench.row(fault, course, done, survived, repeated)


def worker(bench: Bench) -> Iterator[Row]:
    yield from killed_again_and_again(
        bench,
        "SIGKILL of a rank, at random moments",
        "worker",
        bench.kills,
        lambda course, process: wait_for_random_moment(course, process, bench.draw),
    )


def write(bench: Bench) -> Iterator[Row]:
    def inside(course: Course, process: subprocess.Popen) -> bool:
        before = course.saved_update()  # a torn write of the life before may lie there until the next one begins
        found = course.has_begun(process) and wait_until(
            lambda: course.is_writing() and course.update() >= before + 2 * INTERVAL, process
        )
        time.sleep(bench.draw.uniform(0, 0.03) if found else 0)
        return found

    yield from killed_again_and_again(
        bench, "SIGKILL of a rank inside a checkpoint's writing", "write", max(2, bench.kills // 5), inside
    )


def elastic(bench: Bench) -> Iterator[Row]:
    times = max(2, bench.kills // 5)
    restarts = ["--standalone", "--nproc-per-node=2", f"--max-restarts={times + 2}"]
    course = bench.course("elastic", 4 * times + bench.updates, torchrun=restarts)
    process, repeated, done = course.start(), 0, 0
    while done < times and wait_for_random_moment(course, process, bench.draw):
        reached = course.update()
        kill(bench.draw.choice(ranks(process)))
        done += 1
        repeated = max(repeated, reached - course.saved_update())
        wait_until(lambda reached=reached: course.update() < reached or course.update() > reached + INTERVAL, process)
    survived = done if ended(process, 900) == 0 else 0
    yield bench.row("the same, torchrun --max-restarts, by no hand", course, done, survived, repeated)


def agent(bench: Bench) -> Iterator[Row]:
    course, survived, repeated = bench.course("agent", bench.updates), 0, 0
    for _ in range(2):
        process = course.start()
        wait_for_random_moment(course, process, bench.draw)
        process.kill()
        ended(process)
        survived += 1
        repeated = max(repeated, course.update() - course.saved_update())
    yield bench.row("SIGKILL of torchrun alone (its ranks end with it)", course, 2, survived, repeated)


def sigterm(bench: Bench) -> Iterator[Row]:
    for processes, what in ((2, "torchrun"), (1, "a run without torchrun")):
        course = bench.course(f"sigterm_{processes}", bench.updates, processes)
        process = course.start()
        wait_for_random_moment(course, process, bench.draw)
        process.terminate()
        status = ended(process)
        is_saved = course.saved_update() == course.update() and "which is saved" in course.output()
        right = is_saved and (status == 75 if processes == 1 else status not in (0, None))
        note = f"exit status {status}" + (" (its ranks': 75)" if processes == 2 and "exitcode  : 75" in course.output() else "")
        repeated = course.update() - course.saved_update()
        yield bench.row(f"SIGTERM of {what}", course, 1, int(right), repeated, note)


def loader(bench: Bench) -> Iterator[Row]:
    course, survived = bench.course("loader", bench.updates), 0
    process = course.start()
    for target in (5, 15, 25):
        wait_until(lambda target=target: course.update() >= target, process)
        kill(bench.draw.choice([child for rank in ranks(process) for child in children_of(rank)] or [0]))
    survived = 3 if ended(process, 300) == 0 and course.output().count("a data-loader worker died") == 3 else 0
    yield bench.row("SIGKILL of a data-loader worker", course, 3, survived, 0, "goes on by itbench")


def second(bench: Bench) -> Iterator[Row]:
    course = bench.course("second", bench.updates)
    process = course.start()
    wait_until(lambda: course.update() >= 2, process)
    other = Course(bench.data, course.folder, 1, course.options)
    status = other.finish()
    is_first_whole = ended(process, 300) == 0
    right = status == 2 and "trains in it now" in course.output() and is_first_whole
    yield bench.row("a second run started on the same folder", course, 1, int(right), 0, f"refused with status {status}")


def hang(bench: Bench) -> Iterator[Row]:
    course = bench.course("hang", bench.updates)
    course.options.append(f"training.timeout_seconds={HANG_SECONDS}")
    process = course.start()
    if not wait_for_random_moment(course, process, bench.draw):
        raise RuntimeError(f"it ended before: {course.said()[-500:]}")
    began = time.monotonic()
    kill(ranks(process)[1], signal.SIGSTOP)
    status = ended(process, 120 + HANG_SECONDS)
    seconds = round(time.monotonic() - began)
    right = status not in (None, 0) and f"did not answer within training.timeout_seconds={HANG_SECONDS}" in course.output()
    reached = course.update()
    yield bench.row(
        f"a rank hangs (SIGSTOP), timeout_seconds={HANG_SECONDS}",
        course,
        1,
        int(right),
        reached - course.saved_update(),
        f"ended after {seconds} s",
    )


def sweep(bench: Bench) -> Iterator[Row]:
    """Two cells at a time, their sweep killed in the midst of their training, then the same command again."""
    import yaml

    updates = 3 * INTERVAL
    course = Course(bench.data, bench.folder / "sweep" / "full" / "train" / "seed_1", 1, [f"training.max_updates={updates}"])
    fixed = [*SIZE_OPTIONS, *course.options, f"env.data_dir={bench.data}"]
    stage = {"config": os.path.abspath(course.config), "metric": "minival/vqa2/accuracy"}
    content = {"save_dir": str(bench.folder / "sweep"), "overrides": fixed, "stages": {"train": stage}, "rows": {"full": {}}}
    file = bench.folder / "sweep.yaml"
    file.write_text(yaml.safe_dump({**content, "seeds": [1, 2], "jobs": 2}))
    command = [sys.executable, "-m", "pixelbert_plugin.commands.sweep", f"config={file}"]
    other = Course(bench.data, bench.folder / "sweep" / "full" / "train" / "seed_2", 1)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: min(course.update(), other.update()) > INTERVAL, process, 400)
    cells = children_of(process.pid)
    process.kill()
    process.wait()
    at_work = [pid for pid in cells if lives(pid)]
    time.sleep(3)
    are_gone = len(cells) == 2 and not any(lives(pid) for pid in cells)
    reached, saved = course.update(), course.saved_update()
    status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    plain = bench.course("sweep_plain", updates, 1)
    plain_status = plain.finish()
    note = f"{len(at_work)} of {len(cells)} cells outlived it by an instant; then status {status}"
    yield Row(
        "SIGKILL of pixelbert-sweep at two cells, same command again",
        1,
        int(are_gone and status == plain_status == 0),
        reached - saved,
        course.losses() == plain.losses() and [record["update"] for record in other.records()] == list(range(1, updates + 1)),
        note,
    )


def lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
