"""Pixel random sampling: distinct, valid, uniform, and a function of the seed alone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelbert_plugin.models.pixel_sampling import hash_int64, sample_pixels


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_sampled_pixels_are_distinct_and_valid(data):
    images, pixels = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 60))
    kept = data.draw(st.integers(1, 70))
    rows = data.draw(
        st.lists(st.lists(st.booleans(), min_size=pixels, max_size=pixels).filter(any), min_size=images, max_size=images)
    )
    seeds = data.draw(st.lists(st.integers(0, 2**63 - 1), min_size=images, max_size=images))
    mask = torch.tensor(rows)
    index, keep = sample_pixels(mask, torch.tensor(seeds), kept, (1, pixels))
    assert index.shape == keep.shape == (images, min(kept, pixels))
    for row in range(images):
        chosen = index[row][keep[row]].tolist()
        assert len(set(chosen)) == len(chosen) == min(kept, int(mask[row].sum()))
        assert mask[row][chosen].all()
        alone, alone_keep = sample_pixels(mask[row : row + 1], torch.tensor(seeds[row : row + 1]), kept, (1, pixels))
        assert alone[0][alone_keep[0]].tolist() == chosen


def test_every_pixel_is_drawn_equally_often():
    draws, pixels, kept = 20_000, 40, 10
    index, _ = sample_pixels(torch.ones(draws, pixels, dtype=torch.bool), torch.arange(draws), kept, (5, 8))
    counts = torch.bincount(index.flatten(), minlength=pixels).double()
    expected = draws * kept / pixels
    # each count is close to binomial(draws, 1/4): five standard deviations
    assert (counts - expected).abs().max() < 5 * (draws * 0.25 * 0.75) ** 0.5
    together = ((index == 0).any(1) & (index == 1).any(1)).sum() / draws
    assert abs(together - kept * (kept - 1) / (pixels * (pixels - 1))) < 0.01


def test_the_draw_does_not_depend_on_what_a_grid_is_padded_to():
    rows, columns, kept = 4, 5, 7
    seeds = torch.arange(50)
    alone, _ = sample_pixels(torch.ones(50, rows * columns, dtype=torch.bool), seeds, kept, (rows, columns))
    mask = torch.zeros(50, 6, 9, dtype=torch.bool)
    mask[:, :rows, :columns] = True
    padded, _ = sample_pixels(mask.flatten(1), seeds, kept, (6, 9))
    assert torch.equal(alone // columns, padded // 9) and torch.equal(alone % columns, padded % 9)


def splitmix64(value: int) -> int:
    """The finaliser in plain Python integers."""
    value &= 2**64 - 1
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
    return value ^ (value >> 31)


@given(st.integers(-(2**63), 2**63 - 1))
def test_hash_is_splitmix64(value):
    assert int(hash_int64(torch.tensor(value))) % 2**64 == splitmix64(value)
