"""Faults provoked on purpose, and what each cost: updates repeated, updates or data lost, losses changed.

    python benchmarks/faults.py [--kills 50] [--updates 40] [--seed 1] [--only NAME …] [--folder FOLDER] > benchmarks/faults.txt

Runs Pixel-BERT on two processes (DDP, gloo) on a miniature VQA 2.0, a checkpoint every 5 updates, with augmentation, dropout,
accumulated gradients and a data-loader worker each. A fault has survived where `checkpoint.resume=true` (or, where the table
says so, nobody's hand) went on to the end and every loss and gradient norm of the log is that of an unbroken run to the last
bit. Where nothing is trained after the fault (an evaluation, an export, a refusal), survived means: the right thing was said
in one line, exit status 2, and nothing that was there is lost. The disks' rows mount a tmpfs and `hosts` makes network
namespaces: they need root, and are left out without it. A row that breaks off counts as not survived; the others go on.
"""

import argparse
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from fault_data import astray, changed, image, index, png, shared_memory
from fault_disks import best, block, damage, disk, disk_blocks, disk_cache, disk_export, disk_log, disk_results, no_locks
from fault_interrupts import interrupt
from fault_long import long
from fault_processes import agent, elastic, hang, loader, second, sigterm, sweep, worker, write
from fault_refusals import again, batches, descriptors, exported, forged, odd_images, raising, stalled, unpicklable
from fault_table import HEAD, Bench, Row
from two_hosts import hosts

# by name, in the order of the table; two rows and more of one name stand together
ROWS = {
    function.__name__: function
    for function in (
        worker,
        write,
        elastic,
        agent,
        sigterm,
        interrupt,
        disk,
        disk_log,
        disk_results,
        disk_cache,
        disk_blocks,
        disk_export,
        damage,
        best,
        forged,
        exported,
        block,
        no_locks,
        loader,
        shared_memory,
        descriptors,
        image,
        png,
        odd_images,
        changed,
        batches,
        astray,
        index,
        again,
        raising,
        unpicklable,
        stalled,
        second,
        hang,
        hosts,
        sweep,
        long,
    )
}


def attempted(name: str, bench: Bench) -> Iterator[Row]:
    try:
        yield from ROWS[name](bench)
    except Exception as error:
        yield Row(name, 1, 0, None, None, f"broke off: {type(error).__name__}: {str(error)[-200:]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs of a rank at random moments")
    parser.add_argument("--updates", type=int, default=40, help="of a training with one fault")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), help="these faults only")
    parser.add_argument("--folder", type=Path, help="where to work; the default is temporary")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it, and so would the runs
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder, options.kills, options.seed, options.updates)
        print(f"torch {torch.__version__}, Python {platform.python_version()}; two processes on a CPU, seed {options.seed}")
        print("repeated: most updates done again after a fault; lost: updates or samples missing at the end;")
        print(
            "identical: every loss and gradient norm (without training: every figure) is the unbroken run's, to the last bit\n"
        )
        print(HEAD, flush=True)
        rows = []
        for name in options.only:
            for row in attempted(name, bench):
                rows.append(row)
                print(row, flush=True)
    failed = [row for row in rows if row.is_failed]
    print(f"\n{len(rows) - len(failed)} of {len(rows)} faults survived every time")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
