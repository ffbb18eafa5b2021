"""A program's end once torch was used: nothing is freed by the interpreter any more, which has aborted runs that were done."""

import signal
import subprocess
import sys

import pytest

CODE = """
import atexit, os, sys

class Aborts:
    def __del__(self):
        os.abort()  # as C++ does where a thread of gloo's is ended while it frees a Python object

freed_at_the_end = Aborts()
sys.modules["torch"] = sys
atexit.register(print, "closed")
sys.stdout.write("results, ")
from pixelbert_plugin.commands.command import leave
END
"""


@pytest.mark.parametrize(("end", "status"), [("sys.exit(75)", -signal.SIGABRT), ("leave(75)", 75), ("leave(0)", 0)])
def test_the_end_is_not_the_interpreters(end, status):
    done = subprocess.run([sys.executable, "-c", CODE.replace("END", end)], capture_output=True, text=True, check=False)
    assert done.returncode == status
    if status >= 0:
        assert done.stdout == "results, closed\n" and done.stderr == ""
