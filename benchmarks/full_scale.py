"""What the paper's experiments cost at full size: FLOPs counted, throughput measured on a GPU, GPU-hours reckoned.

    python benchmarks/full_scale.py [--tflops 200] > benchmarks/full_scale.txt

The operations are those that `pixelbert-plan` counts (planning/dry_run.py), of a micro-batch as the configuration has it:
images of a 4:3 photograph, a multiply-add as two. On a CUDA device the same micro-batch is trained on, with random pixels and
weights: TFLOP/s is then what the device keeps up, for `pixelbert-plan … rate=`. Without one GPU-hours are those at --tflops,
which a GPU is assumed to keep up. Data loading, evaluation and optimizers are left out.
"""

import argparse
import time
from pathlib import Path

import torch

from pixelbert_plugin import config as configuration
from pixelbert_plugin.build import build_model
from pixelbert_plugin.distributed.parallel import Losses
from pixelbert_plugin.planning.batches import Shape, make
from pixelbert_plugin.planning.options import PlanConfig
from pixelbert_plugin.planning.planner import Planner
from pixelbert_plugin.planning.schedule import TERA, Course
from pixelbert_plugin.planning.simulation import Simulation
from pixelbert_plugin.precision import native

CONFIGS = Path(__file__).parents[1] / "projects" / "pixelbert" / "configs"
NAMES = ("pretrain", "vqa2", "nlvr2", "flickr30k_retrieval", "coco_retrieval")
NUM_TIMED = 10  # steps


def measured_seconds(simulation: Simulation, shape: Shape, device: torch.device) -> float:
    """Of forward and backward pass of a micro-batch on a CUDA device, in bfloat16."""
    model = (
        build_model(simulation.config.chosen_model, simulation.task, simulation.processors, simulation.config.training.seed)
        .to(device)
        .train()
    )
    batch = make(simulation.task, simulation.processors["text"], shape)
    sizes = batch.image_sizes
    batch.images = torch.randn(len(batch.image_seeds), 3, *shape.size)
    batch = batch.to(device)
    batch.image_sizes = sizes  # read on the CPU
    losses = Losses(model, simulation.task, native.choose("bf16", {}, device))
    for update in range(2 + NUM_TIMED):
        if update == 2:
            torch.cuda.synchronize()
            start = time.monotonic()
        sum(losses(batch).values()).backward()
        model.zero_grad()
    torch.cuda.synchronize()
    return (time.monotonic() - start) / NUM_TIMED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tflops", type=float, default=200, help="10^12 operations per second that a GPU keeps up")
    parser.add_argument("--backbones", nargs="+", default=["", "_x152"], help="endings of the configurations' names")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    is_gpu = device.type == "cuda"
    told = (
        f"as measured on {torch.cuda.get_device_name()}" if is_gpu else f"at {arguments.tflops:g} TFLOP/s, assumed: no GPU here"
    )
    own = PlanConfig(gpus=f"1x80GB@{arguments.tflops:g}", rate=arguments.tflops, image_size="480x640")
    print(f"torch {torch.__version__}; photographs of 4:3, {own.tokens} tokens; GPU-hours {told}\n")
    titles = ("configuration", "GFLOP per sample", "samples/s", "TFLOP/s", "epochs", "GPU-hours")
    print("  ".join([f"{titles[0]:<24}", *(f"{title:>16}" for title in titles[1:])]))
    for name in (f"{name}{ending}" for ending in arguments.backbones for name in NAMES):
        config = configuration.resolve(CONFIGS / f"{name}.yaml")
        planner = Planner(config, own)
        shape = planner.shape(planner.micro, own.tokens)
        with planner.simulation as simulation:
            per_sample = planner.operations_per_sample()
            step = simulation.step(shape)
        rate = arguments.tflops * TERA
        if is_gpu:
            rate = (step.forward + step.backward) / measured_seconds(simulation, shape, device)
        epoch, _ = planner.lengths.epoch(config.training.dataset_weights)
        samples = Course.of(config, epoch, planner.pairs).samples
        figures = (
            f"{per_sample / 1e9:.0f}",
            f"{rate / per_sample:.1f}",
            f"{rate / TERA:.0f}",
            f"{config.training.max_epochs:g}",
            f"{per_sample * samples / rate / 3600:.0f}",
        )
        print("  ".join([f"{name:<24}", *(f"{figure:>16}" for figure in figures)]), flush=True)


if __name__ == "__main__":
    main()
