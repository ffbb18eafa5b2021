"""Two hosts on one machine: network namespaces with a link between them, torchrun with c10d rendezvous on each.

They train together; the link is cut; the host of the rendezvous goes on alone, by torchrun's restart and the run's last
checkpoint, without a hand.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fault_table import Bench, Row
from fault_tools import Course, ended, wait_until

HOSTS = ("pixelbert_a", "pixelbert_b")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
UPDATES = 40


def ip(*arguments: str, check: bool = True) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=check).returncode == 0


@contextmanager
def namespaces() -> Iterator[bool]:
    """Two namespaces, each with an end of one link, called link0. False where they cannot be made (needs root)."""
    for host in HOSTS:
        ip("netns", "del", host, check=False)
    if not all(ip("netns", "add", host, check=False) for host in HOSTS):
        yield False
        return
    try:
        ip("link", "add", "link0", "netns", HOSTS[0], "type", "veth", "peer", "name", "link0", "netns", HOSTS[1])
        for host, address in zip(HOSTS, ADDRESSES, strict=True):
            ip("-n", host, "addr", "add", f"{address}/24", "dev", "link0")
            for device in ("lo", "link0"):
                ip("-n", host, "link", "set", device, "up")
        yield True
    finally:
        for host in HOSTS:
            ip("netns", "del", host, check=False)


def hosts(bench: Bench) -> Iterator[Row]:
    with namespaces() as has_namespaces:
        if not has_namespaces:
            print("hosts: network namespaces cannot be made here (needs root); left out", file=sys.stderr)
            return
        rendezvous = [
            "--nnodes=1:2",
            "--nproc-per-node=1",
            "--max-restarts=5",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={ADDRESSES[0]}:29400",
            "--rdzv-id=two_hosts",
        ]
        options = [f"training.max_updates={UPDATES}", "training.timeout_seconds=10"]
        first, second = (
            Course(
                bench.data,
                bench.folder / "hosts",
                2,
                options,
                [
                    *rendezvous,
                    f"--local-addr={address}",
                    f"--rdzv-conf=join_timeout=60,last_call_timeout=5,is_host={int(host == HOSTS[0])}",
                ],
                name_space=host,
            )
            for host, address in zip(HOSTS, ADDRESSES, strict=True)
        )
        here, there = first.start(), second.start()
        together = wait_until(lambda: first.update() >= 12, here, 180) and "processes 2" in first.output()
        reached = first.update()
        ip("-n", HOSTS[0], "link", "set", "link0", "down")
        went_on = wait_until(lambda: first.update() > reached + 6 and "processes 1" in first.output(), here, 240)
        os.killpg(there.pid, signal.SIGKILL)  # it cannot reach the rendezvous any more
        ended(there)
        status = ended(here, 600)
        records = first.records()
        is_whole = [record["update"] for record in records] == list(range(1, UPDATES + 1))
        resumed = int(first.output().rpartition(", after update ")[2].split()[0])
        same = first.losses()[:resumed] == bench.unbroken(UPDATES)[:resumed]  # on one process dropout draws otherwise
        survived = int(together and went_on and status == 0)
        note = f"two processes, then one from update {resumed} on; identical until there"
        yield Row("the link between two hosts is cut", 1, survived, max(0, reached - resumed), is_whole and same, note)
