"""What `pixelbert-plan` reckons, against what trainings take: memory and time of small configurations on a CPU.

    python benchmarks/planning.py [--only TEXT] > benchmarks/planning.txt

Each configuration trains in a process of its own, updates on the same micro-batches of the miniature world. Measured are the
bytes that autograd saves for the backward pass (each storage once, weights left out), the resident memory's highest value above
what the process had before the model was built (after another training of its kind, whose code and caches stay), and the
processor's seconds of an update, on one thread. The plan is given the micro-batches' shape (pairs, images and their size,
longest text) and runs without data, as for a GPU, but with a CPU's operations. Time: the rate of the first configuration of
each precision is taken for all others of it. What a GPU's own libraries take was not measured.
"""

import argparse
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from pixelbert_plugin import config as configuration
from pixelbert_plugin.build import build_model, build_optimizers, learn_task
from pixelbert_plugin.checkpoint.start import Start
from pixelbert_plugin.data.loaders import Loaders
from pixelbert_plugin.data.run_data import RunData, build_builders
from pixelbert_plugin.distributed.parallel import Losses, wrap
from pixelbert_plugin.distributed.processes import ALONE
from pixelbert_plugin.planning import memory
from pixelbert_plugin.planning.batches import Shape
from pixelbert_plugin.planning.simulation import Simulation
from pixelbert_plugin.precision import native
from pixelbert_plugin.training.step import Step

CONFIGS = Path(__file__).parents[1] / "projects" / "pixelbert" / "configs" / "mini"
WORLD = (
    "coco_train_images=400 coco_restval_images=20 coco_val_images=20 coco_test_images=20 coco_test2015_images=20 vg_images=60 "
    "vg_coco_images=20 vg_flickr_images=4 flickr_train_images=200 flickr_val_images=20 flickr_test_images=20 "
    "nlvr2_train_sets=80 nlvr2_dev_sets=10 nlvr2_test1_sets=10 nlvr2_test2_sets=10 backbone_updates=0 processes=1"
).split()
NUM_UPDATES = 3
MODEL, IMAGE, TEXT = "model_config.pixelbert", "model_config.pixelbert.image_encoder", "model_config.pixelbert.text_encoder"
RESNET50, BF16 = [f"{IMAGE}.type=resnet50"], ["training.precision=bf16"]
LARGE = ["processors.image.params.short_edge=128", "processors.image.params.long_edge=192"]
WIDE = [f"{TEXT}.params.hidden_size=256", f"{TEXT}.params.num_hidden_layers=4", f"{TEXT}.params.intermediate_size=1024"]


def sized(batch: int, micro: int | None = None) -> list[str]:
    return [f"training.batch_size={batch}", f"training.micro_batch_size={micro or batch}"]


CASES: dict[str, tuple[str, list[str]]] = {
    "vqa2, 64 pairs": ("vqa2", sized(64)),
    "vqa2, 128 pairs": ("vqa2", sized(128)),
    "vqa2, 64 pairs in 4 micro-batches": ("vqa2", sized(64, 16)),
    "vqa2, an image each": ("vqa2", [*sized(64), "training.texts_per_image=1"]),
    "vqa2, images of 128": ("vqa2", [*sized(64), *LARGE]),
    "vqa2, resnet50": ("vqa2", [*sized(64), *RESNET50]),
    "vqa2, resnet50, norms fixed": ("vqa2", [*sized(64), *RESNET50, f"{IMAGE}.params.norm=frozen"]),
    "vqa2, CNN frozen": ("vqa2", [*sized(64), f"{MODEL}.freeze_image_encoder=true"]),
    "vqa2, transformer 4 × 256": ("vqa2", [*sized(64), *WIDE]),
    "vqa2, with dropout": ("vqa2", [*sized(64), f"{TEXT}.params.dropout=0.1", f"{TEXT}.params.attention_dropout=0.1"]),
    "vqa2, images of 128, pooled": ("vqa2", [*sized(64), *LARGE, f"{IMAGE}.params.max_pool=true"]),
    "vqa2, bf16": ("vqa2", [*sized(64), *BF16]),
    "vqa2, resnet50, images of 128, bf16": ("vqa2", [*sized(64), *RESNET50, *LARGE, *BF16]),
    "nlvr2, 32 pairs": ("nlvr2", sized(32)),
    "nlvr2, resnet50": ("nlvr2", [*sized(32), *RESNET50]),
    "nlvr2, images of 128": ("nlvr2", [*sized(32), *LARGE]),
    "nlvr2, bf16": ("nlvr2", [*sized(32), *BF16]),
    "retrieval, 16 images": ("flickr30k_retrieval", sized(16)),
    "retrieval, resnet50": ("flickr30k_retrieval", [*sized(16), *RESNET50]),
    "retrieval, 5 negatives": (
        "flickr30k_retrieval",
        [*sized(16), "task_config.retrieval.num_negatives=5", "task_config.retrieval.num_hardest=5"],
    ),
    "retrieval, bf16": ("flickr30k_retrieval", [*sized(16), *BF16]),
    "pretrain, 128 pairs": ("pretrain", sized(128)),
    "pretrain, resnet50": ("pretrain", [*sized(128), *RESNET50]),
    "pretrain, images of 128, 15 pixels": ("pretrain", [*sized(128), *LARGE, f"{MODEL}.num_sampled_pixels=15"]),
    "pretrain, bf16": ("pretrain", [*sized(128), *BF16]),
}


def measure(name: str, folder: str) -> dict[str, float]:
    """One configuration, measured and planned, in this process."""
    config_name, overrides = CASES[name]
    shared = [f"env.data_dir={folder}", "env.cache_dir=null", f"{IMAGE}.params.weights=null", "training.num_workers=0"]
    config = configuration.resolve(
        CONFIGS / f"{config_name}.yaml", [*shared, "processors.answers.params.min_occurrences=1", *overrides]
    )
    training, device = config.training, torch.device("cpu")
    data = RunData.of(build_builders(config.datasets, config.dataset_config, config.env), config.splits())
    task, processors = learn_task(config.chosen_task, config.processors, data, Start())
    loader = Loaders(training, None, task, processors, device).of(data.splits["train"])
    pairs = task.pairs_per_sample
    batches, _ = next(
        loader.updates(0, training.batch_size // pairs, training.micro_batch_size // pairs, training.texts_per_image)
    )
    numbers = native.choose("bf16" if training.precision == "bf16" else "fp32", {}, device)

    def training_step() -> Step:
        model = build_model(config.chosen_model, task, processors, config.training.seed).train()
        optimizers = build_optimizers(config.optimizer, model)
        numbers.prepare(model, optimizers)
        return Step(
            parallel=wrap("ddp", Losses(model, task, numbers), ALONE),
            task=task,
            optimizers=optimizers,
            schedule=lambda update, epoch: 1.0,
            precision=numbers,
            processes=ALONE,
            seed=1,
        )

    training_step()(batches, 1, 0.0, loader.one_ahead)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = forget_highest()
    step, seconds = training_step(), []
    for update in range(NUM_UPDATES):
        start = time.process_time()
        step(batches, update + 1, 0.0, loader.one_ahead)
        seconds.append(time.process_time() - start)
    resident = highest() - before
    model = step.parallel.losses.model
    own = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}

    storages: dict[int, int] = {}

    def saved(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(saved, lambda value: value):
        kept = step.parallel(batches[0])
    measured = sum(storages.values())
    del kept

    first = batches[0]
    shape = Shape(
        len(first),
        len(first.image_seeds) // (task.images_per_sample or 1),
        first.input_ids.shape[1],
        tuple(first.images.shape[-2:]),
    )
    with Simulation(config, numbers, device, data.samples, 2, []) as simulation:
        planned = simulation.step(shape)
        whole = memory.of_training(simulation.weights(), planned, 1, "ddp", len(batches) > 1, has_gpu=False)
    return {
        "saved": measured,
        "planned_saved": planned.saved,
        "resident": resident,
        "planned_resident": whole.total,
        "seconds": statistics.median(seconds),
        "operations": (planned.forward + planned.backward) * len(batches),
    }


def forget_highest() -> int:
    """Resident bytes now; the kernel's highest value is set back to them."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return status("VmRSS")


def highest() -> int:
    return status("VmHWM")


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="configurations whose name has this in it")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "DATA"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    # glibc gives freed memory back at once, so that what is resident is what is used
    given_back = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}
    environment = {**os.environ, **given_back, "OMP_NUM_THREADS": "1"}
    print(f"torch {torch.__version__}, one thread of a CPU; MB and s, planned / measured\n")
    print(f"{'configuration':<38}{'saved':>15}{'error':>8}{'resident':>15}{'error':>8}{'s/update':>16}{'error':>8}")
    rates: dict[bool, float] = {}
    errors: dict[str, list[float]] = {"saved": [], "resident": [], "time": []}
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/mini"
        command = [sys.executable, "-m", "pixelbert_plugin.commands.data", "make", f"out={data}", *WORLD]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for name in CASES:
            if arguments.only not in name:
                continue
            done = subprocess.run(
                [sys.executable, __file__, "--measure", name, data],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                sys.exit(f"{name}: {done.stderr[-3000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            is_bf16 = "bf16" in name
            is_first = is_bf16 not in rates
            rate = rates.setdefault(is_bf16, found["operations"] / found["seconds"])
            found["planned_seconds"] = found["operations"] / rate
            row = f"{name:<38}"
            for what, form, unit in (("saved", "{:.0f}", 1e6), ("resident", "{:.0f}", 1e6), ("seconds", "{:.3f}", 1)):
                error = found[f"planned_{what}"] / found[what] - 1
                both = f"{form.format(found[f'planned_{what}'] / unit)} / {form.format(found[what] / unit)}"
                row += (
                    f"{both:>{16 if what == 'seconds' else 15}}{'' if what == 'seconds' and is_first else f'{error:+.0%}':>8}"
                )
                if what != "seconds" or not is_first:
                    errors["time" if what == "seconds" else what].append(abs(error))
            print(row, flush=True)
    print()
    for what, values in errors.items():
        told = f"median {statistics.median(values):.1%}, worst {max(values):.1%}, of {len(values)}"
        print(f"error of {what:<10} {told}")


if __name__ == "__main__":
    main()
