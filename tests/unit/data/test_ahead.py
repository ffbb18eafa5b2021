"""How many micro-batches of an update are ready at a time, and that it changes no bit."""

import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.data import ahead
from pixelbert_plugin.data.ahead import one_ahead
from pixelbert_plugin.distributed.parallel import Alone, Losses
from pixelbert_plugin.distributed.processes import ALONE
from pixelbert_plugin.precision.native import Fp32
from pixelbert_plugin.training.step import Step
from unit.data.test_loader import make_loader

CPU = torch.device("cpu")


class Alive:
    """Makes batches ready, and counts those of which somebody still holds the images."""

    def __init__(self, make_ready):
        self.make_ready, self.made, self.counts = make_ready, [], []

    def __call__(self, batch):
        ready = self.make_ready(batch)
        self.made.append(weakref.ref(ready.images))
        self.counts.append(sum(images() is not None for images in self.made))
        return ready


class Brightness(nn.Module):
    """A number for each image, through a convolution, which keeps its images for the backward pass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, batch):
        return self.norm(self.conv(batch.images)).relu().mean((1, 2, 3))[batch.image_index[:, 0]]


class Squares:
    chosen = None

    def loss(self, output, batch):
        return {"squares": (output.square() * batch.weights).sum()}

    def counts(self, batch):
        return {"squares": batch.weights.sum()}


def losses_of(updates, made_ready, device=CPU):
    """Of two updates, and the weights after them."""
    model, numbers = Brightness().to(device), Fp32(device)
    named = list(model.named_parameters())
    optimizers = {"all": registry.build("optimizer", "sgd", {"lr": 0.5}, "o", named_parameters=named)}
    task = Squares()
    step = Step(
        parallel=Alone(Losses(model, task, numbers)),
        task=task,
        optimizers=optimizers,
        schedule=lambda update, epoch: 1.0,
        precision=numbers,
        processes=ALONE,
        seed=1,
    )
    found = [float(step(batches, number + 1, 0.0, made_ready)[0]["squares"]) for number, batches in enumerate(updates)]
    return found, [parameter.detach().clone() for parameter in model.parameters()]


def test_an_update_holds_one_micro_batch_on_a_cpu_and_its_losses_are_those_of_all_ready_before(vqa2_root):
    assert losses_are_those_of_all_ready_before(vqa2_root, CPU) == [1] * 12


def losses_are_those_of_all_ready_before(root, device):
    """To the last bit. Returns how many micro-batches were held when each was made."""
    loader = make_loader(root)
    loader.device = device
    iterator = loader.updates(0, 12, 2, 2)
    updates = [next(iterator)[0] for _ in range(2)]
    assert [len(update) for update in updates] == [6, 6]
    assert all(image.dtype == torch.uint8 for update in updates for batch in update for image in batch.images)
    alive = Alive(loader.ready)
    losses, weights = losses_of(updates, lambda batches: one_ahead(batches, alive, device), device)
    before = [[loader.ready(batch) for batch in update] for update in updates]
    expected, expected_weights = losses_of(before, iter, device)
    assert losses == expected and losses[0] != losses[1]
    assert all(map(torch.equal, weights, expected_weights))
    return alive.counts


class Stream:
    def __init__(self, name, told):
        self.name, self.told = name, told

    def wait_stream(self, other):
        self.told.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event):
        self.told.append(f"{self.name} waits for {event}")

    def record_event(self):
        return self.told[-1]


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_on_a_gpu_the_next_one_is_made_in_a_stream_of_its_own_and_two_are_held(monkeypatch, count):
    """Without one: which stream waits for what, and who holds what."""
    told = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("model", told))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(told.append(f"in {stream.name}")))
    monkeypatch.setattr(ahead, "_beside", lambda device: Stream("beside", told))

    class Images:
        pass

    class Ready:
        def __init__(self, number):
            told.append(f"made {number}")
            self.number, self.images = number, Images()

    alive, seen = Alive(Ready), []
    for batch in one_ahead(range(count), alive, torch.device("cuda")):
        told.append(f"computed {batch.number}")
        seen.append(batch.number)
        del batch
    assert seen == list(range(count))
    assert alive.counts == [1, 2, 2, 2, 2][:count]
    assert told.count("beside waits for model") == told.count("in beside") == count
    for number in range(count):
        at = told.index(f"computed {number}")
        assert told[at - 1] == f"model waits for made {number}"
        if number + 1 < count:
            assert told.index(f"made {number + 1}") < at  # so that it is made while this one is computed
        if number + 2 < count:  # in the memory of this one, once it has been read
            assert told.index(f"made {number + 2}") == told.index("beside waits for model", at) + 2
