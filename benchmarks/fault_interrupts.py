"""Ctrl-C at every stage of a run, once and twice."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator

from fault_table import Bench, Row
from fault_tools import INTERVAL, Course, ended, wait_for_random_moment, wait_until

from pixelbert_plugin.checkpoint.checkpoints import problem

EVALUATED = 20  # the update after which a course is evaluated


def interrupt(bench: Bench) -> Iterator[Row]:
    def while_starting(course: Course, process: subprocess.Popen) -> None:
        time.sleep(bench.draw.uniform(0.3, 3))

    def while_training(course: Course, process: subprocess.Popen) -> None:
        wait_for_random_moment(course, process, bench.draw)

    def while_evaluating(course: Course, process: subprocess.Popen) -> None:
        wait_until(lambda: course.update() >= EVALUATED, process, 600)

    def while_saving(course: Course, process: subprocess.Popen) -> None:
        wait_until(lambda: course.update() >= INTERVAL and course.is_writing(), process, 600)

    moments = {
        "while it starts": while_starting,
        "in training": while_training,
        "in an evaluation": while_evaluating,
        "in a checkpoint's writing": while_saving,
    }
    for what, moment in moments.items():
        yield interrupted(bench, f"Ctrl-C {what}", moment, times=1)
    yield interrupted(bench, "Ctrl-C twice, in training", while_training, times=2)


def interrupted(bench: Bench, fault: str, moment: Callable[[Course, subprocess.Popen], None], times: int) -> Row:
    course = bench.course(fault.replace(" ", "_").replace("'", ""), bench.updates, 1)
    process = course.start()
    moment(course, process)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    status, reached = ended(process), course.update()
    is_whole = all(problem(path) is None for path in course.checkpoints())
    right = status in (75, 130, -signal.SIGINT) and is_whole and "Traceback" not in course.said()
    lines = course.said().strip().splitlines()
    note = f"exit status {status}: {lines[-1][:100] if lines else 'nothing said'}"
    return bench.row(fault, course, 1, int(right), max(0, reached - course.saved_update()), note)
