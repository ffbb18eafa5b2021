"""GPUs by name: memory and rates of the vendor's data sheets, and how `gpus=8xH100` is read."""

import re
from dataclasses import dataclass

from pixelbert_plugin.registry.schema import ConfigError

GB = 10**9  # what a card offers is a little more than the data sheet's figure of these


@dataclass(frozen=True)
class Card:
    """One kind of GPU. Rates in TFLOP/s: dense, a multiply-add as two; None where it has no such arithmetic."""

    name: str
    memory_gb: float
    fp16: float | None
    bf16: float | None
    tf32: float | None
    fp32: float | None
    source: str = "its data sheet"


# NVIDIA's data sheets; where one gives the rate with sparsity, half of it. RTX4090: NVIDIA's Ada white paper, with sums in
# float32
CARDS = (
    Card("H200", 141, 989, 989, 494, 67),  # "NVIDIA H200 Tensor Core GPU", SXM
    Card("H100", 80, 989, 989, 494, 67),  # "NVIDIA H100 Tensor Core GPU", SXM
    Card("A100-80", 80, 312, 312, 156, 19.5),  # "NVIDIA A100 Tensor Core GPU"
    Card("A100-40", 40, 312, 312, 156, 19.5),
    Card("V100-32", 32, 125, None, None, 15.7),  # "NVIDIA V100 Tensor Core GPU", SXM2
    Card("V100-16", 16, 125, None, None, 15.7),
    Card("L4", 24, 121, 121, 60, 30.3),  # "NVIDIA L4 Tensor Core GPU"
    Card("A10", 24, 125, 125, 62.5, 31.2),  # "NVIDIA A10 Tensor Core GPU"
    Card("RTX4090", 24, 165.2, 165.2, 82.6, 82.6),
    Card("T4", 16, 65, None, None, 8.1),  # "NVIDIA T4 Tensor Core GPU"
)
OWN = re.compile(r"(?P<memory>\d+(\.\d+)?)gb@(?P<tflops>\d+(\.\d+)?)")


@dataclass(frozen=True)
class Gpus:
    """So many GPUs of one kind."""

    number: int
    card: Card


def read_gpus(text: str) -> Gpus:
    """ "8xH100", "1xA100-80", or a card of one's own: "4x48GB@360" has 48 GB and 360 TFLOP/s in whatever it computes in.

    Raises ConfigError, which lists the known cards.
    """
    number, _, name = text.strip().partition("x")
    wanted = re.sub(r"[\s_]", "", name).lower()
    if not number.isdigit() or int(number) < 1 or not wanted:
        raise ConfigError("gpus", f"{text!r}: write number x card, such as 8xH100 ({known()})")
    own = OWN.fullmatch(wanted)
    if own is not None and float(own["memory"]) and float(own["tflops"]):
        rate = float(own["tflops"])
        return Gpus(int(number), Card(f"{own['memory']}GB", float(own["memory"]), rate, rate, rate, rate, "gpus"))
    for card in CARDS:
        if wanted.removesuffix("gb") == card.name.lower():
            return Gpus(int(number), card)
    raise ConfigError("gpus", f"{text!r}: no such card is known ({known()})")


def known() -> str:
    return f"known: {', '.join(card.name for card in CARDS)}; any other as 4x48GB@360: GB of memory, TFLOP/s"
