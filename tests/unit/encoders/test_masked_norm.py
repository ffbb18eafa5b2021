"""Batch norms of padded batches against the same sums over the images' own pixels, written out in float64."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from pixelbert_plugin.encoders import masked_norm
from pixelbert_plugin.encoders.masked_norm import (
    MaskedBatchNorm2d,
    MaskedFrozenBatchNorm2d,
    ValidArea,
    find_padding,
    find_places,
)

CPU = torch.device("cpu")
SIZES = [(5, 7), (3, 2), (6, 4), (1, 9)]
PADDED = (6, 9)


@pytest.fixture(params=["by slices", "by places"], autouse=True)
def both_ways(request, monkeypatch):
    """Padding as it is written on a CPU, and as on a GPU."""
    if request.param == "by places":

        def with_places(sizes, resolution, device):
            found = find_padding(sizes, resolution, device)
            return found and replace(found, places=find_places(sizes, resolution, found.all - found.own))

        monkeypatch.setattr(masked_norm, "find_padding", with_places)


def area_of(sizes=SIZES, padded=PADDED):
    area = ValidArea()
    area.set(torch.tensor(sizes), padded, CPU)
    return area


def inside():
    """I 1 h w float64: 1 at the images' own pixels."""
    mask = torch.zeros(len(SIZES), 1, *PADDED, dtype=torch.float64)
    for row, (height, width) in zip(mask, SIZES, strict=True):
        row[:, :height, :width] = 1
    return mask


def reference(values, weight, bias, eps=1e-5):
    """Normalised values, mean and biased variance, in float64 and with gradients."""
    mask = inside()
    count = mask.sum()
    mean = (values * mask).sum((0, 2, 3), keepdim=True) / count
    variance = ((values - mean).square() * mask).sum((0, 2, 3), keepdim=True) / count
    normalised = (values - mean) / (variance + eps).sqrt() * weight[:, None, None] + bias[:, None, None]
    return normalised * mask, mean.flatten(), variance.flatten()


def made(channels=5, mean=0.5, std=2.0, padding=100.0, dtype=torch.float32):
    """A norm with its statistics as new, values with something else at padding, and a gradient that is not 0 there."""
    draw = torch.Generator().manual_seed(3)
    values = torch.randn(len(SIZES), channels, *PADDED, generator=draw) * std + mean
    values = torch.where(inside().bool(), values, torch.full_like(values, padding))
    gradient = torch.randn(values.shape, generator=draw)
    norm = MaskedBatchNorm2d(channels, area_of()).train()
    norm.weight.data.copy_(torch.linspace(-1, 2, channels))
    norm.bias.data.copy_(torch.linspace(1, -2, channels))
    return norm, values.to(dtype), gradient.to(dtype)


@pytest.mark.parametrize(
    ("dtype", "mean", "std", "padding", "close"),
    [
        (torch.float32, 0.5, 2.0, 100.0, 1e-6),
        (torch.float32, 1000.0, 1.0, -5.0, 1e-4),  # of float32's last digit at 1000, 6e-5, as torch's own
        (torch.float32, 0.0, 1e-3, 1e30, 1e-6),
        (torch.bfloat16, 0.5, 2.0, 100.0, 1e-2),
    ],
)
def test_values_statistics_and_gradients_are_those_of_the_own_pixels(dtype, mean, std, padding, close):
    norm, values, gradient = made(mean=mean, std=std, padding=padding, dtype=dtype)
    exact = values.double().requires_grad_()
    weight, bias = (parameter.detach().double().requires_grad_() for parameter in (norm.weight, norm.bias))
    expected, expected_mean, expected_variance = reference(exact, weight, bias)
    expected.backward(gradient.double())
    given = values.requires_grad_()
    found = norm(given)
    found.backward(gradient)

    def error(one, other):
        return float((one.double() - other).abs().max() / other.abs().max())

    assert found.dtype == dtype and found.isfinite().all()
    assert error(found.detach(), expected.detach()) < close
    assert error(norm.running_mean, 0.1 * expected_mean.detach()) < 1e-6
    count = inside().sum()
    assert error(norm.running_var, 0.9 + 0.1 * expected_variance.detach() * count / (count - 1)) < 1e-5
    assert error(given.grad, exact.grad) < 2 * close
    assert error(norm.weight.grad, weight.grad) < close and error(norm.bias.grad, bias.grad) < close
    own = inside().bool().expand_as(found)
    assert not found.detach()[~own].any() and not given.grad[~own].any()


def test_gradients_by_differences():
    area = area_of()
    draw = torch.Generator().manual_seed(4)
    values = torch.randn(len(SIZES), 2, *PADDED, dtype=torch.float64, generator=draw).requires_grad_()
    weight, bias = (torch.randn(2, dtype=torch.float64, generator=draw).requires_grad_() for _ in range(2))

    def normalised(values, weight, bias):
        return masked_norm._Normalised.apply(values.clone(), weight, bias, area.padding(PADDED), 1e-5)[0]

    assert torch.autograd.gradcheck(normalised, (values, weight, bias))


def test_channels_last_is_the_same():
    norm, values, gradient = made()
    other, _, _ = made()
    one = norm(values.clone())
    two = other(values.contiguous(memory_format=torch.channels_last))
    one.backward(gradient)
    two.backward(gradient.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(norm.weight.grad, other.weight.grad)


def test_without_padding_it_is_torchs_own_and_its_input_stays():
    norm, values, _ = made()
    norm.area.set(torch.tensor([PADDED] * len(SIZES)), PADDED, CPU)
    plain = nn.BatchNorm2d(5)
    plain.load_state_dict(norm.state_dict())
    before = values.clone()
    assert torch.equal(norm(values), plain(values)) and torch.equal(values, before)


def test_a_resolution_at_which_padding_is_gone_has_none():
    area = area_of([(64, 64), (63, 63)], (64, 64))
    padding = area.padding((64, 64))
    assert padding is not None and (padding.own, padding.all) == (64 * 64 + 63 * 63, 2 * 64 * 64)
    assert area.padding((32, 32)) is None
    with pytest.raises(ValueError, match=r"no stride of 2 leads to the resolution \(31, 5\)"):
        area.padding((31, 5))


@pytest.mark.parametrize("norm", [MaskedFrozenBatchNorm2d, MaskedBatchNorm2d])
def test_fixed_statistics_pass_gradient_to_the_own_pixels_alone(norm):
    fixed = norm(5, area_of()).eval()
    fixed.running_var.fill_(4.0)
    _, values, gradient = made()
    values.requires_grad_()
    found = fixed(values)
    found.backward(gradient)
    mask = inside().float()
    torch.testing.assert_close(found.detach(), values.detach() / (4 + 1e-5) ** 0.5 * mask)
    torch.testing.assert_close(values.grad, gradient / (4 + 1e-5) ** 0.5 * mask)
    assert (gradient * (1 - mask)).any()  # what came in is not written to


def test_the_sum_over_padding():
    padding = area_of().padding(PADDED)
    values = torch.randn(len(SIZES), 3, *PADDED, dtype=torch.float64)
    torch.testing.assert_close(padding.sum(values), (values * (1 - inside())).sum((0, 2, 3)))
