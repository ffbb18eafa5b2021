"""What only a GPU can show; skipped without one."""

import json

import pytest
import torch
from conftest import write_config
from unit.conftest import make
from unit.data.test_loader import make_loader

from pixelbert_plugin import load, registry
from pixelbert_plugin.build import put_on
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.encoders.masked_norm import MaskedBatchNorm2d, ValidArea
from pixelbert_plugin.models.pixel_sampling import sample_pixels

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_pixels_are_sampled_alike_on_both_devices():
    mask = torch.rand(8, 50) < 0.7
    seeds = torch.randint(0, 2**62, (8,))
    index, kept = sample_pixels(mask, seeds, 20, (5, 10))
    gpu_index, gpu_kept = sample_pixels(mask.cuda(), seeds.cuda(), 20, (5, 10))
    assert torch.equal(index, gpu_index.cpu()) and torch.equal(kept, gpu_kept.cpu())


def test_fp32_training_agrees_with_the_cpu_and_bf16_is_close(tmp_path, vqa2_root):
    options = (
        "training.max_updates=6",
        "model_config.pixelbert.text_encoder.params.dropout=0",
        "model_config.pixelbert.text_encoder.params.attention_dropout=0",
    )
    found = {}
    for name, device, precision in (("cpu", "cpu", "fp32"), ("gpu", "cuda", "fp32"), ("bf16", "cuda", "bf16")):
        config = write_config(tmp_path / f"{name}.yaml", vqa2_root, tmp_path / name)
        assert cli.main([f"config={config}", *options, f"training.device={device}", f"training.precision={precision}"]) == 0
        found[name] = losses(tmp_path / name)
    assert found["gpu"] == pytest.approx(found["cpu"], rel=1e-2)
    assert found["bf16"] == pytest.approx(found["cpu"], rel=1e-1)


def test_resume_on_a_gpu_goes_on_from_the_checkpoint(tmp_path, vqa2_root):
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run")
    assert cli.main([f"config={config}", "training.device=cuda"]) == 0
    arguments = ("training.device=cuda", "checkpoint.resume=true", "training.max_updates=6")
    assert cli.main([f"config={config}", *arguments]) == 0
    assert len(losses(tmp_path / "run")) == 6


def test_batches_made_one_ahead_are_those_made_on_the_spot(vqa2_root):
    """While the device is busy with the one before, so that a stream that did not wait would show."""
    loader = make_loader(vqa2_root)
    loader.device = torch.device("cuda")
    read, _ = next(loader.updates(0, 24, 2, 2))
    read = [batch.pin_memory() for batch in read]
    expected = [loader.ready(batch).images.cpu() for batch in read]
    busy, found = torch.randn(2048, 2048, device="cuda"), []
    for batch in loader.one_ahead(read):
        for _ in range(20):
            busy = (busy @ busy).tanh()
        found.append((batch.images + 0 * busy[0, 0]).clone())
        del batch
    assert len(found) == 12 and all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))


def test_norms_of_a_padded_batch_are_the_cpus():
    found = {}
    for device in ("cpu", "cuda"):
        area = ValidArea()
        area.set(torch.tensor([(30, 41), (25, 40), (30, 33)]), (30, 41), torch.device(device))
        draw = torch.Generator().manual_seed(1)
        values = torch.randn(3, 8, 30, 41, generator=draw).to(device, memory_format=torch.channels_last).requires_grad_()
        gradient = torch.randn(3, 8, 30, 41, generator=draw).to(device)
        norm = MaskedBatchNorm2d(8, area).to(device).train()
        normalised = norm(values)
        normalised.backward(gradient)
        kept = (normalised.detach(), values.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var)
        found[device] = [value.cpu() for value in kept]
    for gpu, cpu in zip(found["cuda"], found["cpu"], strict=True):
        torch.testing.assert_close(gpu, cpu, rtol=1e-4, atol=1e-4)


def test_answers_and_searches_agree_with_the_cpus(tiny_run, vqa2_root):
    images = sorted((vqa2_root / "coco/val2014").iterdir())
    answers = {}
    for device, fast in (("cpu", False), ("cuda", True)):
        found = load(tiny_run, device=device, fast=fast).answer(images, "What color is the disc?", top_k=100)
        answers[device] = [{each.text: each.probability for each in one.answers} for one in found]
    for one, other in zip(answers["cpu"], answers["cuda"], strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    model = make("retrieval")
    expected = model.search(images, "a green disc", top_k=5).found
    model.device = torch.device("cuda")
    model.model.cuda()
    found = model.search(model.gallery(images, batch_size=2), "a green disc", top_k=5).found
    assert {each.image: each.score for each in found} == pytest.approx({each.image: each.score for each in expected}, abs=1e-2)


STILL = [f"model_config.pixelbert.text_encoder.params.{name}=0" for name in ("dropout", "attention_dropout")]


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-3), ("bf16", 1e-1), ("fp16", 3e-2)])
def test_compiled_training_agrees_with_uncompiled(tmp_path, vqa2_root, precision, bound):
    if precision == "bf16" and not torch.cuda.is_bf16_supported():
        pytest.skip("this GPU has no bfloat16")
    options = [*STILL, "training.max_updates=6", "training.device=cuda", f"training.precision={precision}"]
    options += ["precision_config.fp16.init_scale=8"] if precision == "fp16" else []
    for name in ("none", "blocks"):
        config = write_config(tmp_path / f"{name}.yaml", vqa2_root, tmp_path / name)
        assert cli.main([f"config={config}", *options, f"training.compile={name}"]) == 0
    assert losses(tmp_path / "blocks") == pytest.approx(losses(tmp_path / "none"), rel=bound)
    records = [json.loads(line) for line in (tmp_path / "blocks/log.jsonl").read_text().splitlines()]
    assert 0 < records[-1]["compilations"] < 60


def test_convolutions_have_channels_last():
    """Weights, what goes into every convolution, and the gradients; the CNN gives what it gives without."""
    found = []
    for is_sharded in (True, False):  # FSDP takes no such weights
        torch.manual_seed(1)
        encoder = put_on(registry.build("encoder", "resnet18", {}, "e"), torch.device("cuda"), is_sharded).eval()
        layouts: list[bool] = []
        for module in encoder.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_pre_hook(lambda _, given, to=layouts: to.append(is_channels_last(given[0])))
        images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2)).cuda()
        pixels = encoder(images, torch.tensor([(64, 96)] * 2)).pixels
        pixels.square().sum().backward()
        weights = [value for value in encoder.parameters() if value.dim() == 4 and value.shape[-1] > 1]
        if not is_sharded:
            assert all(is_channels_last(value) and is_channels_last(value.grad) for value in weights)
            assert len(layouts) == 20 and all(layouts)
        found.append((pixels, encoder.resnet.conv1.weight.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.abs().max()))


def is_channels_last(value):
    return value.is_contiguous(memory_format=torch.channels_last)
