"""Where the steps of steps.py spend their time, both ways: what limits their ratios.

    python benchmarks/step_profile.py [--short-edge 384] > benchmarks/step_profile.txt

Shares are of the seconds that passed inside torch's kernels, in one step after two to warm up. "Limit" is the ratio of the
naive step to ours if all but matrix products and convolutions took no time in ours: no step on these kernels is faster.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from side_by_side import machine
from steps import settings, vocabulary
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
    arguments = parser.parse_args()
    huge_pages()
    plugins.load()
    size = (arguments.short_edge, arguments.short_edge * 4 // 3)
    print(f"{machine()}\nimages of {size[0]} × {size[1]}\n")
    columns = (*GROUPS, "others")
    print(f"{'what':<40}{'seconds':>9}{''.join(f'{name:>14}' for name in columns)}")
    with tempfile.TemporaryDirectory() as folder:
        vocabulary(Path(folder))
        for setting, what, batch, losses in settings(Path(folder), size):
            naive, ours = seconds(setting.naive_step(batch, losses)), seconds(setting.our_step(batch))
            for way, found in (("naive", naive), ("ours", ours)):
                shares = "".join(f"{found[name] / found.total():>14.0%}" for name in columns)
                print(f"{f'{what}, {way}'[:39]:<40}{found.total():>9.2f}{shares}")
            limit = naive.total() / sum(ours[name] for name in NEEDED)
            print(f"  ratio {naive.total() / ours.total():.2f}, limit {limit:.2f}", flush=True)


if __name__ == "__main__":
    main()
