import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FAULTS = """
import mmap, resource, torch
from pixelbert_plugin.system.linux import huge_pages


def faults(work):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def asked():  # of the system itself
    memory = mmap.mmap(-1, 64 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    torch.frombuffer(memory, dtype=torch.float32).fill_(1.0)
    return memory


huge_pages()
print(faults(lambda: torch.empty(16 * 2**20).fill_(1.0)), faults(asked))  # 64 MB: 16,384 pages of 4 kB
"""
MOST = 2000  # faults of 64 MB in pages of 2 MB, beside the interpreter's own


@pytest.mark.skipif(not SETTING.exists() or "[madvise]" not in SETTING.read_text(), reason="no pages of 2 MB to ask for")
@pytest.mark.parametrize(("own", "fewest", "most"), [(None, 0, MOST), pytest.param("0", 16000, 20000, marks=pytest.mark.slow)])
def test_large_tensors_are_in_huge_pages_unless_the_user_wants_others(own, fewest, most):
    kept = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    chosen = {} if own is None else {"THP_MEM_ALLOC_ENABLE": own}
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, env=kept | chosen, check=True)
    tensor, asked = map(int, done.stdout.split())
    if asked > MOST:
        pytest.skip("the system has no such pages left: its memory is in pieces")
    assert fewest <= tensor <= most
