"""The norms of parameter groups: together they are the norm of the step, whatever scales the loss and holds the gradients."""

import pytest
import torch
from torch import nn

from pixelbert_plugin import registry

CHOICES = {
    "fp32": ("fp32", None),
    "bf16": ("bf16", None),
    "fp16, scaled": ("fp16", {"init_scale": 64}),
    "half weights with masters": ("apex", {"opt_level": "O2", "backend": "native", "loss_scale": 32}),
}


@pytest.mark.parametrize("name", CHOICES)
def test_they_make_up_the_steps_norm_and_change_nothing(name):
    kind, options = CHOICES[name]
    precision = registry.build("precision", kind, options, device=torch.device("cpu"))
    torch.manual_seed(1)
    model = nn.ModuleDict({"cnn": nn.Linear(40, 30), "transformer": nn.Linear(30, 3)})
    optimizers = {part: torch.optim.SGD(model[part].parameters(), lr=0.1) for part in model}
    precision.prepare(model, optimizers)
    inputs = torch.randn(8, 40).to(next(model.parameters()).dtype)
    with precision.autocast():
        loss = model["transformer"](model["cnn"](inputs)).float().square().mean()
    precision.backward(loss, True)
    before = [parameter.grad.clone() for parameter in model.parameters()]
    norms = precision.group_norms(optimizers)
    assert all(torch.equal(one, parameter.grad) for one, parameter in zip(before, model.parameters(), strict=True))
    scale = precision.loss_scale or 1
    by_hand = [grad.float().norm() / scale for grad in before]
    assert norms["cnn"].item() == pytest.approx(torch.stack(by_hand[:2]).norm().item(), rel=1e-3)
    norm = precision.step(optimizers.values(), None)
    assert torch.stack([norms["cnn"], norms["transformer"]]).norm().item() == pytest.approx(norm.item(), rel=1e-3)
