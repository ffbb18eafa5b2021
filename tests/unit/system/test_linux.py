import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FAULTS = """
import resource, torch
from pixelbert_plugin.system.linux import huge_pages
huge_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.empty(16 * 2**20).fill_(1.0)  # 64 MB: 16,384 pages of 4 kB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not SETTING.exists() or "[madvise]" not in SETTING.read_text(), reason="no pages of 2 MB to ask for")
@pytest.mark.parametrize(("own", "fewest", "most"), [(None, 0, 2000), pytest.param("0", 16000, 20000, marks=pytest.mark.slow)])
def test_large_tensors_are_in_huge_pages_unless_the_user_wants_others(own, fewest, most):
    kept = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    chosen = {} if own is None else {"THP_MEM_ALLOC_ENABLE": own}
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, env=kept | chosen, check=True)
    assert fewest <= int(done.stdout) <= most
