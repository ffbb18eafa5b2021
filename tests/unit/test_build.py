"""What does not go together, or cannot be trained or reported, is refused in one line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelbert_plugin import build, loading, registry
from pixelbert_plugin.build import require_suited
from pixelbert_plugin.config.options import TrainingConfig
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.evaluation.evaluator import ask, plain
from pixelbert_plugin.tasks.vqa import VqaTask
from pixelbert_plugin.training.sanity import require_images
from pixelbert_plugin.types import Sample


def sample(images: int, answer: str | None) -> Sample:
    names = tuple(f"{number}.jpg" for number in range(images))
    answers = (answer,) if answer is not None and images == 1 else ()
    return Sample(sample_id=1, image_ids=names, images=tuple(map(Path, names)), text="a", answers=answers, answer=answer)


SETS = {"captions": sample(1, None), "questions": sample(1, "yes"), "statements": sample(2, "True")}
SUITED = {  # pre-training may read questions too, as LXMERT's does
    "pretrain": ("captions", "questions"),
    "retrieval": ("captions", "questions"),  # questions too can be looked for
    "vqa": ("questions",),
    "nlvr2": ("statements",),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("task", SUITED)
def test_a_data_set_of_another_task_is_refused(task, name):
    mixture = Mixture("train", {name: [SETS[name]]})
    if name in SUITED[task]:
        require_suited(task, registry.get("task", task), mixture)
        return
    with pytest.raises(UserError, match=rf"^task: '{task}' .*choose the task that suits datasets={name}"):
        require_suited(task, registry.get("task", task), mixture)


def test_a_split_without_answers_may_be_predicted():
    require_suited("vqa", registry.get("task", "vqa"), Mixture("test", {"vqa2": [SETS["captions"]]}))


def test_all_images_missing_names_the_folder_to_correct(tmp_path):
    images = [tmp_path / "nowhere" / f"{number}.jpg" for number in range(3)]
    samples = [Sample(sample_id=n, image_ids=(n,), images=(image,), text="a") for n, image in enumerate(images)]
    with pytest.raises(UserError, match=r"nor any of the 3 images of the val split of own; .* correct env.data_dir"):
        require_images(Mixture("val", {"own": samples}, {"own": "error"}))


def test_metrics_are_plain_numbers_or_the_task_is_named():
    figures = plain({"accuracy": np.float32(0.5), np.str_("n"): torch.tensor(2)})
    assert json.loads(json.dumps(figures)) == {"accuracy": 0.5, "n": 2.0}
    with pytest.raises(UserError, match="predictions or metrics failed"):
        ask(VqaTask, lambda: plain({"accuracy": "high"}))


def test_batch_norm_over_a_single_pixel_is_one_line():
    encoder = registry.build("encoder", "resnet18", {"weights": None}, "e").train()
    with pytest.raises(UserError, match=r"the single pixel .*norm=frozen"):
        encoder(torch.rand(1, 3, 16, 16), torch.tensor([[16, 16]]))
    assert encoder(torch.rand(2, 3, 16, 16), torch.tensor([[16, 16], [16, 16]])).pixels.isfinite().all()


def test_convolutions_have_channels_last_on_a_gpu_and_nothing_else_changes(monkeypatch):
    """The decision is asked of a CPU as of a GPU: same outputs and gradients, same state; and none of it under FSDP. In
    float64: of the gradients of batch norms over so few pixels float32 leaves two digits with some weights."""
    usual = registry.build("encoder", "resnet18", {}, "e").double()
    state = {name: value.clone() for name, value in usual.state_dict().items()}
    cpu = torch.device("cpu")
    assert not build.has_channels_last(cpu) and build.has_channels_last(torch.device("cuda", 1))
    monkeypatch.setattr(build, "has_channels_last", lambda device: True)
    kernels = [value for value in usual.parameters() if value.dim() == 4 and value.shape[-1] > 1]
    images, found = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(1), dtype=torch.float64), []
    for is_sharded in (True, False):
        changed = build.put_on(usual, cpu, is_sharded)
        layouts = {value.is_contiguous(memory_format=torch.channels_last) for value in kernels}
        assert changed is usual and layouts == {not is_sharded}
        usual.load_state_dict(state)
        pixels = usual(images, torch.tensor([(40, 56), (33, 48)])).pixels
        pixels.square().sum().backward()
        found.append([pixels, *(value.grad.clone() for value in kernels)])
        usual.zero_grad()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9 * float(one.detach().abs().max()))
    own = usual.state_dict()
    assert own.keys() == state.keys() and all(own[name].shape == value.shape for name, value in state.items())


@pytest.mark.parametrize(
    ("device", "sizes", "wanted"),
    [
        ("cuda", [(224, 298)] * 3, True),
        ("cuda", [(224, 298), (224, 298), (224, 300)], False),
        ("cuda", None, False),
        ("cpu", [(224, 298)] * 3, False),
    ],
)
def test_cudnn_tries_its_ways_only_where_one_size_comes_again(device, sizes, wanted):
    build.choose_convolutions(torch.device(device), None if sizes is None else np.array(sizes))
    assert torch.backends.cudnn.benchmark is wanted
    torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize("chosen", [lambda: build.choose_device(TrainingConfig(device="cpu")), lambda: loading._device("cpu")])
def test_large_tensors_are_asked_for_in_huge_pages(monkeypatch, chosen):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "")
    del os.environ["THP_MEM_ALLOC_ENABLE"]
    assert chosen().type == "cpu" and os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
