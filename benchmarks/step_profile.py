"""Where the steps of steps.py spend their time, both ways: what limits their ratios.

    python benchmarks/step_profile.py [--short-edge 384] [--only steps scoring] > benchmarks/step_profile.txt

Shares are of the seconds that passed inside torch's kernels, in one step after two to warm up. "Limit" is the ratio of the
naive way's time to ours if all but matrix products and convolutions took no time in ours: no step on these kernels is faster.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from side_by_side import machine
from steps import scorings, settings, vocabulary
from torch.profiler import ProfilerActivity, profile

from pixelbert_plugin.registry import plugins
from pixelbert_plugin.system.linux import huge_pages

GROUPS = {  # what a kernel's name begins with, behind aten::
    "products": ("mm", "addmm", "bmm", "baddbmm", "_scaled_dot_product"),
    "convolutions": ("mkldnn_convolution", "convolution_backward"),
    "norms": ("native_batch_norm", "native_layer_norm"),
    "dropout": ("bernoulli_",),
    "optimizers": ("_fused_", "linalg_vector_norm", "Optimizer.", "_foreach"),
    "copies": ("copy_", "fill_", "cat", "zero_"),
}
NEEDED = ("products", "convolutions")
COLUMNS = (*GROUPS, "others")


def group(kernel: str) -> str:
    """The one of GROUPS that a profiler's name is of, or "others"."""
    name = kernel.removeprefix("aten::")
    return next((found for found, starts in GROUPS.items() if name.startswith(starts)), "others")


def seconds(step: Callable[[], object]) -> Counter[str]:
    """By group, the seconds of one step's kernels."""
    for _ in range(2):
        step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    found = Counter[str]()
    for event in profiled.key_averages():
        found[group(event.key)] += event.self_cpu_time_total / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short-edge", type=int, default=384, help="pixels; the longer edge is 4/3 of it")
    parser.add_argument("--only", nargs="+", choices=("steps", "scoring"), default=["steps", "scoring"])
    arguments = parser.parse_args()
    huge_pages()
    plugins.load()
    size = (arguments.short_edge, arguments.short_edge * 4 // 3)
    print(f"{machine()}\nimages of {size[0]} × {size[1]}\n")
    print(f"{'what':<40}{'seconds':>9}{''.join(f'{name:>14}' for name in COLUMNS)}")
    with tempfile.TemporaryDirectory() as folder:
        vocabulary(Path(folder))
        if "steps" in arguments.only:
            for setting, what, batch, losses in settings(Path(folder), size):
                show(what, ("naive", setting.naive_step(batch, losses)), ("ours", setting.our_step(batch)))
        if "scoring" in arguments.only:
            naive, ours, in_bf16 = scorings(Path(folder), size)
            show("every pair", ("naive", naive), ("ours", ours))
            show("every pair", ("ours", ours), ("ours, bf16", in_bf16))


def show(what: str, slow: tuple[str, Callable[[], object]], fast: tuple[str, Callable[[], object]]) -> None:
    """Two ways, by name, and what their ratio is and cannot exceed."""
    before, after = seconds(slow[1]), seconds(fast[1])
    for way, found in ((slow[0], before), (fast[0], after)):
        shares = "".join(f"{found[name] / found.total():>14.0%}" for name in COLUMNS)
        print(f"{f'{what}, {way}'[:39]:<40}{found.total():>9.2f}{shares}")
    limit = before.total() / sum(after[name] for name in NEEDED)
    print(f"  ratio {before.total() / after.total():.2f}, limit {limit:.2f}", flush=True)


if __name__ == "__main__":
    main()
