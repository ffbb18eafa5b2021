"""Dropout that is repeated for some sequences: the same values are lost as when all went through."""

import pytest
import torch
from torch import nn

from pixelbert_plugin.encoders.row_dropout import RowDraws, RowDropout, attend

CPU = torch.device("cpu")


def test_some_rows_lose_again_what_they_lost_among_all():
    draws = RowDraws()
    module, values = RowDropout(0.3, draws), torch.ones(6, 50, 20)
    torch.manual_seed(0)
    with draws.first(6, CPU):
        first = [module(values), module(values)]
        after = torch.get_rng_state()
        for rows in (torch.tensor([4]), torch.tensor([0, 2, 5])):
            with draws.again(rows):
                again = [module(values[rows]), module(values[rows])]
            assert all(torch.equal(one, all_rows[rows]) for one, all_rows in zip(again, first, strict=True))
            assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(*first) and set(first[0].unique().tolist()) == {0.0, float(torch.tensor(1.0) / 0.7)}
    assert float((first[0] == 0).float().mean()) == pytest.approx(0.3, abs=0.03)  # of 6,000: three standard deviations


def test_elsewhere_it_is_torchs_own():
    draws, values = RowDraws(), torch.randn(4, 30)
    for module in (RowDropout(0.5, draws), nn.Dropout(0.5)):
        torch.manual_seed(3)
        found = module(values)
        if isinstance(module, RowDropout):
            own = found
    assert torch.equal(own, found)
    with draws.first(4, CPU):
        assert torch.equal(RowDropout(0.5, draws).eval()(values), values)
    with pytest.raises(RuntimeError, match="again belongs inside first"), draws.again(torch.tensor([0])):
        pass


def test_attention_is_torchs_and_its_dropout_is_on_the_weights():
    draw = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(3, 2, 5, 4, generator=draw) for _ in range(3))
    mask = torch.rand(3, 1, 1, 5, generator=draw) < 0.7
    mask[..., 0] = True
    module = nn.Module()
    module.draws = RowDraws()
    found, _ = attend(module, query, key, value, mask, 0.5, dropout=0.0)
    expected = nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=0.5)
    torch.testing.assert_close(found, expected.transpose(1, 2))
    with module.draws.first(3, CPU):
        found, dropped = attend(module, query, key, value, None, 0.5, dropout=0.5)
    kept = dropped != 0
    assert 0 < int(kept.sum()) < kept.numel()
    whole = attend(module, query, key, value, None, 0.5, dropout=0.0)[1]
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])
    torch.testing.assert_close(found, (dropped @ value).transpose(1, 2))


def test_what_a_pass_drew_for_can_be_taken_up_later():
    """As a layer does that is computed again in the backward pass, when `again` is long over."""
    draws, values = RowDraws(), torch.ones(2, 50)
    module, rows = RowDropout(0.5, draws), torch.tensor([0, 3])
    with draws.first(4, CPU):
        module(torch.ones(4, 50))
        with draws.again(rows):
            state, drawing = torch.get_rng_state(), draws.drawing
            found = module(values)
    assert not draws.is_on
    torch.set_rng_state(state)
    with draws.at(drawing):
        assert torch.equal(module(values), found)
    assert not draws.is_on
