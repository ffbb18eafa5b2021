"""The numeric tests on other machines, imitated: the vector instructions and threads that torch, oneDNN and MKL may use."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
COUNTED = {"commands", "planning", "sweep"}  # rooms whose numbers are of counting, the same on any machine
NUMERIC = sorted(
    str(path)
    for path in TESTS.glob("unit/**/test_*.py")
    if path.parent.name not in COUNTED and re.search(r"assert_close|allclose|approx\(", path.read_text("utf-8"))
)
MACHINES = {  # ATen's, oneDNN's and MKL's words, threads
    "sse4": ("default", "SSE41", "SSE4_2", 1),
    "avx2": ("avx2", "AVX2", "AVX2", 2),
    "avx512": ("avx512", "AVX512_CORE", "AVX512", 4),
}


def has(flag: str) -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and flag in info.read_text().split()


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_numbers_hold_on(name, tmp_path):
    aten, onednn, mkl, threads = MACHINES[name]
    if name != "sse4" and not has({"avx2": "avx2", "avx512": "avx512f"}[name]):
        pytest.skip(f"this CPU has no {name}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment |= {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": onednn, "MKL_ENABLE_INSTRUCTIONS": mkl}
    environment |= {"OMP_NUM_THREADS": str(threads)}
    files = [*NUMERIC, *([str(TESTS / "distributed/test_exactness.py")] if name == "sse4" else [])]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'tests'}", *files]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=TESTS.parent, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
