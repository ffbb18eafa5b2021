"""What the paper's experiments cost at full size: FLOPs counted, throughput measured on a GPU, GPU-hours reckoned.

    python benchmarks/full_scale.py [--tflops 200] > benchmarks/full_scale.txt

Each experiment's own model runs on random pixels, of a 4:3 photograph resized as the configuration says, and random words,
one image (NLVR2: two) with as many texts as the configuration puts to it at once. torch counts the floating-point operations
of the forward pass (a multiply-add is two; in the backward pass of grouped convolutions it counts too many); what is trained
costs three times as much, what is frozen once. GPU-hours are the operations of the whole schedule at the rate that was
measured on a CUDA device; without one at --tflops, which a GPU is assumed to keep up. Data loading, evaluation and optimizers
are left out.
"""

import argparse
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from pixelbert_plugin import config, registry
from pixelbert_plugin.registry import plugins
from pixelbert_plugin.types import Batch

CONFIGS = Path(__file__).parents[1] / "projects" / "pixelbert" / "configs"
PHOTOGRAPH, TOKENS, VOCABULARY = (480, 640), 16, 30522  # height and width in pixels: most of COCO's
COCO_PAIRS, VG_PAIRS, VQA_PAIRS, NLVR2_PAIRS, FLICKR_PAIRS = 566_747, 5_400_000, 443_757, 86_373, 145_000
COCO_RETRIEVAL_PAIRS = COCO_PAIRS
NUM_TIMED = 10  # steps
# config, heads, images and texts of a step, texts of a step that are samples, samples per epoch
STEPS = (
    ("pretrain", {"mlm": VOCABULARY, "itm": 2}, 1, 16, 8, COCO_PAIRS + VG_PAIRS),  # 8 true texts and 8 false ones
    ("vqa2", {"answers": 3129}, 1, 4, 4, VQA_PAIRS),
    ("nlvr2", {"pair": 2}, 2, 1, 1, NLVR2_PAIRS),
    ("flickr30k_retrieval", {"itm": 2}, 1, 21, 1, FLICKR_PAIRS),  # 20 negatives
    ("coco_retrieval", {"itm": 2}, 1, 21, 1, COCO_RETRIEVAL_PAIRS),
)


def random_batch(size: tuple[int, int], images: int, texts: int, mlm: bool) -> Batch:
    """`texts` texts put to one image, or one text put to two images, of `size` (height, width)."""
    batch = Batch(
        sample_ids=list(range(texts)),
        input_ids=torch.randint(1000, VOCABULARY, (texts, TOKENS)),
        text_mask=torch.ones(texts, TOKENS, dtype=torch.bool),
        images=torch.randn(images, 3, *size),
        image_sizes=torch.tensor([size] * images),
        image_index=torch.arange(images).expand(texts, images),
        image_seeds=torch.zeros(images, dtype=torch.long),
        weights=torch.ones(texts),
    )
    if mlm:  # 15 % of the words of the true half
        batch.targets["mlm_positions"] = torch.arange(0, texts * TOKENS // 2, 7)
    return batch


def measure(name: str, heads: dict[str, int], images: int, texts: int, device: torch.device) -> tuple[float, float | None]:
    """Operations of a step, forward and backward, and its seconds on a CUDA device."""
    random = [f"model_config.pixelbert.{part}_encoder.params.weights=null" for part in ("image", "text")]
    made = config.complete(config.load(str(CONFIGS / f"{name}.yaml"), random))
    options = made.model_config["pixelbert"]
    made_for = {"vocab_size": VOCABULARY, "pad_token_id": 0, "heads": heads}
    model = registry.build("model", "pixelbert", options, "model_config.pixelbert", **made_for)
    model.to(device).train()
    processor = registry.build_component("processor", made.processors.image, "processors.image.params")
    batch = random_batch(processor.resized(*PHOTOGRAPH), images, texts, "mlm" in heads)
    sizes = batch.image_sizes
    batch = batch.to(device)
    batch.image_sizes = sizes  # read on the CPU
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def step() -> None:
        with torch.autocast(device.type, dtype=dtype, enabled=device.type == "cuda"):
            logits = model(batch).logits
        sum(value.float().sum() for value in logits.values()).backward()

    with torch.no_grad(), FlopCounterMode(display=False) as cnn:
        model.image_encoder(batch.images, sizes)
    with torch.no_grad(), FlopCounterMode(display=False) as whole:
        model(batch)
    frozen = cnn.get_total_flops() if model.config.freeze_image_encoder else 0
    flops = 3 * (whole.get_total_flops() - frozen) + frozen
    if device.type != "cuda":
        return flops, None
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    start = time.monotonic()
    for _ in range(NUM_TIMED):
        step()
    torch.cuda.synchronize()
    return flops, (time.monotonic() - start) / NUM_TIMED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tflops", type=float, default=200, help="10^12 operations per second that a GPU keeps up")
    parser.add_argument("--backbones", nargs="+", default=["", "_x152"], help="endings of the configurations' names")
    arguments = parser.parse_args()
    plugins.load()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    is_gpu = device.type == "cuda"
    rate = (
        f"as measured on {torch.cuda.get_device_name()}" if is_gpu else f"at {arguments.tflops:g} TFLOP/s, assumed: no GPU here"
    )
    print(f"torch {torch.__version__}; photographs of 4:3, {TOKENS} tokens; GPU-hours {rate}\n")
    titles = ("configuration", "GFLOP per sample", "samples/s", "TFLOP/s", "epochs", "GPU-hours")
    print("  ".join([f"{titles[0]:<24}", *(f"{title:>16}" for title in titles[1:])]))
    for ending in arguments.backbones:
        for name, heads, images, texts, samples, epoch in STEPS:
            made = config.load(str(CONFIGS / f"{name}{ending}.yaml"))
            flops, seconds = measure(f"{name}{ending}", heads, images, texts, device)
            total = flops / samples * epoch * made.training.max_epochs
            rate = flops / seconds if seconds else arguments.tflops * 1e12
            figures = (
                f"{flops / samples / 1e9:.0f}",
                f"{rate / (flops / samples):.1f}",
                f"{rate / 1e12:.0f}",
                f"{made.training.max_epochs:g}",
                f"{total / rate / 3600:.0f}",
            )
            print("  ".join([f"{name + ending:<24}", *(f"{figure:>16}" for figure in figures)]), flush=True)


if __name__ == "__main__":
    main()
