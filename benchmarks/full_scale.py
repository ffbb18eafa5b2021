"""What the paper's experiments cost at full size: operations counted, GPU-hours reckoned from a rate.

    python benchmarks/full_scale.py [--tflops 200] > benchmarks/full_scale.txt

The operations are those that `pixelbert-plan` counts (planning/dry_run.py), of a micro-batch as the configuration has it:
images of a 4:3 photograph, a multiply-add as two. GPU-hours are those at --tflops, which a GPU is assumed to keep up;
benchmarks/gpu.py measures what one keeps up, and prints the same table at that. Data loading, evaluation and optimizers are
left out.
"""

import argparse
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from pixelbert_plugin import config as configuration
from pixelbert_plugin.planning.options import PlanConfig
from pixelbert_plugin.planning.planner import Planner
from pixelbert_plugin.planning.schedule import TERA, Course

CONFIGS = Path(__file__).parents[1] / "projects" / "pixelbert" / "configs"
NAMES = ("pretrain", "vqa2", "nlvr2", "flickr30k_retrieval", "coco_retrieval")
BACKBONES = ("", "_x152")  # endings of the configurations' names
TITLES = ("GFLOP per sample", "samples/s", "TFLOP/s", "epochs", "GPU-hours")


class Experiment:
    """One of the paper's, by the name of its configuration."""

    def __init__(self, name: str, overrides: Sequence[str] = ()):
        self.name = name
        self.config = configuration.resolve(CONFIGS / f"{name}.yaml", overrides)
        self.own = PlanConfig(gpus="1x80GB@1", rate=1, image_size="480x640")
        self.planner = Planner(self.config, self.own)

    @cached_property
    def per_sample(self) -> float:
        """Operations of a forward and backward pass."""
        with self.planner.simulation:
            return self.planner.operations_per_sample()

    @property
    def samples(self) -> int:
        """Of the whole training."""
        epoch, _ = self.planner.lengths.epoch(self.config.training.dataset_weights)
        return Course.of(self.config, epoch, self.planner.pairs).samples

    def figures(self, tflops: float) -> tuple[str, ...]:
        """What `TITLES` says, on a GPU that keeps up so much."""
        rate = tflops * TERA
        return (
            f"{self.per_sample / 1e9:.0f}",
            f"{rate / self.per_sample:.1f}",
            f"{tflops:.0f}",
            f"{self.config.training.max_epochs:g}",
            f"{self.per_sample * self.samples / rate / 3600:.0f}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tflops", type=float, default=200, help="10^12 operations per second that a GPU keeps up")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), help="endings of the configurations' names")
    arguments = parser.parse_args()
    told = f"at {arguments.tflops:g} TFLOP/s, assumed"
    print(f"torch {torch.__version__}; photographs of 4:3, {PlanConfig.tokens} tokens; GPU-hours {told}\n")
    print("  ".join([f"{'configuration':<24}", *(f"{title:>16}" for title in TITLES)]))
    for name in (f"{name}{ending}" for ending in arguments.backbones for name in NAMES):
        figures = Experiment(name).figures(arguments.tflops)
        print("  ".join([f"{name:<24}", *(f"{figure:>16}" for figure in figures)]), flush=True)


if __name__ == "__main__":
    main()
