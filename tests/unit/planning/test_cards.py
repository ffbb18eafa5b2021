"""`gpus=8xH100`: what is read, and what is refused in one line."""

import pytest

from pixelbert_plugin.planning.cards import CARDS, read_gpus
from pixelbert_plugin.registry.schema import ConfigError


@pytest.mark.parametrize(
    ("text", "number", "name", "memory", "bf16"),
    [
        ("8xH100", 8, "H100", 80, 989),
        ("1xA100-80", 1, "A100-80", 80, 312),
        ("2xa100-40GB", 2, "A100-40", 40, 312),
        ("16x RTX 4090", 16, "RTX4090", 24, 165.2),
        ("1xT4", 1, "T4", 16, None),
        ("4x48GB@360", 4, "48GB", 48, 360),
        ("4x22.5gb@90.5", 4, "22.5GB", 22.5, 90.5),
    ],
)
def test_gpus_are_a_number_and_a_card(text, number, name, memory, bf16):
    found = read_gpus(text)
    assert (found.number, found.card.name.lower(), found.card.memory_gb, found.card.bf16) == (
        number,
        name.lower(),
        memory,
        bf16,
    )


@pytest.mark.parametrize(
    "text", ["8xA100", "8xMI300", "H100", "0xH100", "x", "", "8x", "-1xH100", "4xGB@3", "4x0GB@3", "4x48GB@0"]
)
def test_what_is_no_gpu_is_refused_in_one_line_that_lists_the_known(text):
    with pytest.raises(ConfigError) as caught:
        read_gpus(text)
    message = str(caught.value)
    assert message.startswith(f"gpus: {text!r}") and "\n" not in message
    assert all(card.name in message for card in CARDS) and "4x48GB@360" in message


def test_half_types_are_no_slower_than_float32():
    for card in CARDS:
        assert card.fp16 > card.fp32 and (card.tf32 or card.fp32) >= card.fp32, card
        assert (card.bf16 is None) == (card.tf32 is None), card  # both came with Ampere
