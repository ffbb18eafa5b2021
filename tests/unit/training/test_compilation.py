"""torch.compile block by block: the same numbers, few compilations, and what becomes of a block that cannot be compiled."""

import logging
from copy import deepcopy

import pytest
import torch
from torch import nn
from traced_blocks import traced_blocks

from pixelbert_plugin import registry
from pixelbert_plugin.registry.schema import ConfigError
from pixelbert_plugin.training import compilation as module
from pixelbert_plugin.training.compilation import compile_blocks, require_compiler
from pixelbert_plugin.types import CompileUnit
from unit.models.test_pixelbert_read import STILL, gradients

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def new():
    torch._dynamo.reset()


@pytest.fixture
def traced():
    with traced_blocks():
        yield


class Net(nn.Module):
    """A model of the blocks given."""

    def __init__(self, *blocks, units=None):
        super().__init__()
        self.blocks, self.units = nn.ModuleList(blocks), units

    def compile_units(self):
        return [CompileUnit(block) for block in self.blocks] if self.units is None else self.units

    def forward(self, values):
        for block in self.blocks:
            values = block(values)
        return values


class Doubled(nn.Module):
    def __init__(self, times=2):
        super().__init__()
        self.linear, self.times = nn.Linear(3, 3), times

    def forward(self, values):
        return self.linear(values) * self.times


class Looking(Doubled):
    """It looks at a value, which no trace knows."""

    def forward(self, values):
        return super().forward(values) if float(values.detach().sum()) > 0 else values


def test_layers_of_any_sizes_are_compiled_twice_and_compute_the_same(traced):
    usual = registry.build("encoder", "bert", STILL, "e", vocab_size=50).train()
    changed = deepcopy(usual)
    names = list(usual.state_dict())
    compiled = compile_blocks(changed, "bert", CPU)
    assert list(changed.state_dict()) == names
    with compiled.going_on():
        for texts, length, read in ((3, 3, 2), (2, 6, 3), (5, 9, 4)):  # at first as many texts as words
            draw = torch.Generator().manual_seed(texts)
            ids = torch.randint(5, 50, (texts, length), generator=draw)
            mask = torch.arange(length) < torch.randint(1, length + 1, (texts, 1), generator=draw)
            positions = torch.randint(0, length, (texts, read), generator=draw)
            found = []
            for encoder in (usual, changed):
                hidden = encoder.read(encoder.embed(ids), mask, positions)
                hidden.square().sum().backward()
                found.append((hidden, gradients(encoder)))
            (hidden, slopes), (other, steep) = found
            torch.testing.assert_close(other, hidden, rtol=1e-5, atol=1e-6)
            for name, slope in slopes.items():
                torch.testing.assert_close(steep[name], slope, rtol=1e-4, atol=1e-5, msg=name)
        assert compiled.count == 2  # a layer, and the last one, which reads
        changed.eval()
        with torch.no_grad():
            assert torch.equal(changed(hidden, mask[:, :read])[0], usual.eval()(hidden, mask[:, :read])[0])
    assert compiled.count == 2 and str(compiled).startswith("training.compile: 2 compilations for 1 kinds of 3 blocks, ")


def test_blocks_that_are_alike_share_and_a_copy_has_weights_of_its_own(traced):
    parts = [nn.Sequential(Doubled(), Doubled()), Doubled(), nn.Sequential(nn.Linear(3, 3), nn.ReLU()), Doubled(3)]
    net = Net(*parts).train()
    compiled = compile_blocks(net, "net", CPU)
    assert [(kind.name, len(kind.units)) for kind in compiled.kinds.values()] == [("Doubled", 4), ("Sequential", 1)]
    values = torch.randn(5, 3)
    expected = Net(*deepcopy(parts)).eval()(values)  # which computes as it is written
    copy = deepcopy(net)
    for parameter in copy.parameters():
        nn.init.zeros_(parameter)
    with compiled.going_on():
        torch.testing.assert_close(net(values), expected)
        assert not copy(values).any()
        assert compiled.count == 4  # the first one's input has no gradient; times 3 is a value that the block's text has not
    assert [type(block) for block in copy.blocks] == [nn.Sequential, Doubled, nn.Sequential, Doubled]


def test_a_block_that_cannot_be_traced_runs_as_it_is_and_says_so_once(traced, caplog):
    net = Net(Looking(), Doubled(), Looking()).train()
    expected = deepcopy(net)(torch.ones(2, 3))
    compiled = compile_blocks(net, "net", CPU)
    with caplog.at_level(logging.WARNING), compiled.going_on():
        for _ in range(3):
            torch.testing.assert_close(net(torch.ones(2, 3)), expected)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1 and told[0].startswith("training.compile: Looking cannot be compiled (") and "\n" not in told[0]
    assert compiled.count == 1 and str(compiled).endswith("; 2 blocks run uncompiled")


def test_compilations_are_bounded(traced, caplog, monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 2)
    net = Net(*(Doubled(times) for times in (2, 3, 4, 5))).train()
    expected = deepcopy(net).eval()(torch.ones(2, 3))
    compiled = compile_blocks(net, "net", CPU)
    with caplog.at_level(logging.WARNING), compiled.going_on():
        for _ in range(2):
            torch.testing.assert_close(net(torch.ones(2, 3)), expected)
    assert compiled.count == 2
    assert [record.getMessage() for record in caplog.records] == [
        "training.compile: Doubled was compiled 2 times, for inputs that differ in more than their sizes; what would need "
        "another one runs uncompiled"
    ]


def test_what_is_left_out_is_not_compiled(traced):
    net = Net(Doubled(), nn.Sequential(Doubled(), Doubled()))
    assert [len(kind.units) for kind in compile_blocks(net, "net", CPU, but=net.blocks[1]).kinds.values()] == [1]


def test_a_model_without_blocks_and_a_machine_without_compiler(monkeypatch):
    with pytest.raises(ConfigError, match=r"training\.compile: 'blocks', but the model 'mine' has none \(compile_units\(\)"):
        compile_blocks(Net(units=[]), "mine", CPU)

    def none(*_arguments, **_options):
        raise RuntimeError("torch.compile is not supported on Python 3.15+\nand more")

    monkeypatch.setattr(torch, "compile", none)
    with pytest.raises(ConfigError) as error:
        require_compiler(CPU)
    assert str(error.value) == (
        "training.compile: 'blocks', but torch.compile does not work here (RuntimeError: torch.compile is not supported on "
        "Python 3.15+); it needs a C++ compiler (apt-get install g++, or CXX=PATH); or set it to none"
    )
