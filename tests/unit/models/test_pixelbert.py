"""Pixel-BERT against an assembly written here from torchvision's ResNet and transformers' BertModel."""

from dataclasses import replace

import pytest
import torch
import torchvision
import transformers
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Batch
from unit.encoders.test_resnet import lively, padded

SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 20,
    "initializer_range": 0.06,
}


def model(heads=None, max_pool=True, text=None, vocab_size=50, **options):
    torch.manual_seed(0)
    node = {
        "image_encoder": {"type": "resnet18", "params": {"max_pool": max_pool}},
        "text_encoder": {"type": "bert", "params": text or SMALL},
        **options,
    }
    heads = {"answers": 7} if heads is None else heads
    built = registry.build("model", "pixelbert", node, "model_config.pixelbert", vocab_size=vocab_size, heads=heads)
    lively(built.image_encoder)
    return built.eval()


def on(device, batch):
    """The batch on a device; the model reads the images' sizes on the CPU."""
    return replace(batch.to(device), image_sizes=batch.image_sizes)


def batch(images, lengths=(6, 9, 4), index=None, seeds=None, epoch_targets=None):
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 50, (len(lengths), max(lengths)), generator=draw)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    pixels, sizes = padded(images)
    index = torch.arange(len(lengths))[:, None] % len(images) if index is None else torch.tensor(index)
    return Batch(
        sample_ids=list(range(len(lengths))),
        input_ids=ids * mask,
        text_mask=mask,
        images=pixels,
        image_sizes=sizes,
        image_index=index,
        image_seeds=torch.arange(len(images)) + 5 if seeds is None else torch.tensor(seeds),
        weights=torch.ones(len(lengths)),
        targets=epoch_targets or {},
    )


@torch.no_grad()
@pytest.mark.parametrize("max_pool", [True, False])
def test_output_equals_an_independent_assembly(max_pool):
    net = model(max_pool=max_pool)
    images = list(torch.randn(3, 3, 128, 192, generator=torch.Generator().manual_seed(2)))
    data = batch(images)
    output = net(data)

    resnet = torchvision.models.resnet18(weights=None).eval()
    resnet.load_state_dict(net.image_encoder.resnet.state_dict(), strict=False)
    trunk = nn.Sequential(*list(resnet.children())[:-2])
    sizes = {**SMALL, "vocab_size": 50}
    bert = transformers.BertModel(transformers.BertConfig(**sizes, attn_implementation="eager"), add_pooling_layer=False).eval()
    bert.load_state_dict(net.text_encoder.bert.state_dict())
    for row in range(3):  # one at a time: no padding anywhere
        grid = trunk(images[row][None])
        if max_pool:
            grid = nn.functional.max_pool2d(grid, 2, 2)
        pixels = grid[0].flatten(1).T @ net.projection.weight.T + net.projection.bias + net.pixel_embedding
        length = int(data.text_mask[row].sum())
        words = bert.embeddings(input_ids=data.input_ids[row : row + 1, :length])
        hidden = bert.encoder(torch.cat([words, pixels[None]], 1)).last_hidden_state
        torch.testing.assert_close(output.text[row, :length], hidden[0, :length], atol=1e-5, rtol=0)
        torch.testing.assert_close(output.pixels[row], hidden[0, length:], atol=1e-5, rtol=0)
        head = net.heads["answers"].layers
        logits = head[3](head[2](nn.functional.gelu(head[0](hidden[0, 0]))))
        torch.testing.assert_close(output.logits["answers"][row], logits, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"position_embedding": "2d", "pixel_layer_norm": True}, {"max_pool": False}])
def test_images_of_different_sizes_answer_as_alone(options):
    net = model(**options)
    images = [torch.randn(3, 97, 131), torch.randn(3, 65, 160), torch.randn(3, 129, 67)]
    together = net(batch(images)).logits["answers"]
    for row, image in enumerate(images):
        single = batch(images)
        pixels, sizes = padded([image])
        length = int(single.text_mask[row].sum())
        alone = Batch(
            sample_ids=[row],
            input_ids=single.input_ids[row : row + 1, :length],
            text_mask=single.text_mask[row : row + 1, :length],
            images=pixels,
            image_sizes=sizes,
            image_index=torch.zeros(1, 1, dtype=torch.int64),
            image_seeds=torch.tensor([1]),
            weights=torch.ones(1),
        )
        torch.testing.assert_close(net(alone).logits["answers"][0], together[row], atol=1e-4, rtol=0)


@torch.no_grad()
def test_order_of_pixels_matters_only_with_position_embedding():
    for position, changes in (("none", False), ("2d", True)):
        net = model(position_embedding=position)
        images = [torch.randn(3, 128, 192)]
        data = batch(images, lengths=(5,))
        features = net.image_encoder(data.images, data.image_sizes)
        turned = type(features)(pixels=features.pixels.flip(1), mask=features.mask, grid=features.grid)
        plain = net(data).logits["answers"]
        net.image_encoder.forward = lambda *_, turned=turned: turned
        difference = (net(data).logits["answers"] - plain).abs().max()
        assert (difference > 1e-3) if changes else (difference < 1e-5)


@torch.no_grad()
def test_sampling_only_in_training_and_by_seed():
    net = model(num_sampled_pixels=4, max_pool=False)
    images = [torch.randn(3, 128, 160), torch.randn(3, 64, 64)]  # 20 and 4 pixels
    evaluated = net(batch(images, lengths=(5, 5)))
    assert evaluated.pixels.shape[1] == 20
    net.train()
    one, same, other = (net(batch(images, lengths=(5, 5), seeds=seeds)) for seeds in ([3, 4], [3, 4], [8, 4]))
    assert one.pixels.shape[1] == 4 and one.pixel_mask.all()
    assert torch.equal(one.pixel_positions, same.pixel_positions)
    assert not torch.equal(one.pixel_positions[0], other.pixel_positions[0])
    assert torch.equal(one.pixel_positions[1], other.pixel_positions[1])  # f(seed of the image) alone
    valid = net.image_encoder(*padded(images)).mask
    assert valid[1][one.pixel_positions[1]].all()
    net.config.num_sampled_pixels = None
    assert net(batch(images, lengths=(5, 5))).pixels.shape[1] == 20


@torch.no_grad()
def test_several_texts_share_an_image():
    net = model()
    images = [torch.randn(3, 128, 128), torch.randn(3, 128, 128)]
    shared = net(batch(images, lengths=(6, 6, 6), index=[[1], [0], [1]])).logits["answers"]
    doubled = net(batch([images[1], images[0], images[1]], lengths=(6, 6, 6))).logits["answers"]
    torch.testing.assert_close(shared, doubled, atol=1e-5, rtol=0)


@torch.no_grad()
def test_pair_head_sees_each_statement_with_both_images():
    net = model(heads={"pair": 2})
    images = [torch.randn(3, 128, 128) for _ in range(3)]
    data = batch(images, lengths=(6, 4), index=[[0, 1], [2, 0]])
    output = net(data)
    assert output.logits["pair"].shape == (2, 2) and output.text.shape[0] == 4
    singles = net(batch(images, lengths=(6, 4), index=[[2], [0]])).text  # statement 0 with image 2, 1 with 0
    torch.testing.assert_close(output.text[3], singles[1], atol=1e-5, rtol=0)
    head = net.heads["pair"].layers
    joined = torch.cat([output.text[2, 0], output.text[3, 0]])
    expected = head[3](head[2](nn.functional.gelu(head[0](joined))))
    torch.testing.assert_close(output.logits["pair"][1], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_mlm_head_predicts_masked_words_only_with_tied_embeddings():
    net = model(heads={"mlm": 50, "itm": 2})
    targets = {"mlm_positions": torch.tensor([2, 9 + 8])}  # word 2 of text 0 and word 8 of text 1, of 9 words each
    output = net(batch([torch.randn(3, 128, 128)] * 3, epoch_targets=targets))
    assert output.logits["mlm"].shape == (2, 50) and output.logits["itm"].shape == (3, 2)
    head = net.heads["mlm"]
    words = net.text_encoder.bert.embeddings.word_embeddings.weight
    expected = head.transform(output.text[1, 8]) @ words.T + head.bias
    torch.testing.assert_close(output.logits["mlm"][1], expected, atol=1e-5, rtol=0)
    assert sum("word_embeddings" in name for name in net.state_dict()) == 1


@torch.no_grad()
def test_image_answers_head_averages_the_images_own_pixels():
    net = model(heads={"image_answers": 5})
    images = [torch.randn(3, 130, 200), torch.randn(3, 64, 64)]
    logits = net(batch(images, lengths=(5, 5))).logits["image_answers"]
    for row, image in enumerate(images):
        pixels = net.image_encoder(*padded([image])).pixels[0]
        expected = net.heads["image_answers"].classifier(pixels.mean(0))
        torch.testing.assert_close(logits[row], expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_attentions_are_returned_on_request_and_change_nothing():
    net = model()
    data = batch([torch.randn(3, 128, 192)] * 3)
    plain, observed = net(data), net(data, return_attentions=True)
    torch.testing.assert_close(plain.text, observed.text, atol=1e-5, rtol=0)
    assert len(observed.attentions) == 3 and plain.attentions is None
    size = 9 + 6
    assert observed.attentions[0].shape == (3, 4, size, size)
    torch.testing.assert_close(observed.attentions[0].sum(-1), torch.ones(3, 4, size))
    assert observed.attentions[0][0, :, :, 6:9].abs().max() < 1e-6  # padding after the six words of text 0
    assert observed.grid == (2, 3)


@torch.no_grad()
def test_bfloat16_is_close_and_matches_in_float32():
    """Retrieval ranks by the matching head: eight bits of mantissa would make ties of different scores."""
    images = [torch.randn(3, 128, 96, generator=torch.Generator().manual_seed(3))]
    net = model(heads={"itm": 2})
    full = net(batch(images)).logits["itm"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(batch(images)).logits["itm"]
    assert half.dtype == torch.float32 and (half.bfloat16().float() != half).all()
    assert not torch.equal(half, full)
    torch.testing.assert_close(half, full, atol=0.03, rtol=0.03)


def test_parameters_by_optimizer_are_all_and_apart():
    net = model()
    groups = net.parameter_groups()
    names = [name for group in groups.values() for name, _ in group]
    assert sorted(names) == sorted(name for name, _ in net.named_parameters())
    assert all(name.startswith("image_encoder.") for name, _ in groups["cnn"])


@torch.no_grad()
def test_too_long_texts_and_too_large_grids_name_the_option():
    with pytest.raises(UserError, match=r"processors.text.params.max_length: a text of 21 tokens"):
        model()(batch([torch.randn(3, 64, 64)], lengths=(21,)))
    with pytest.raises(UserError, match=r"max_grid_size=2"):
        model(position_embedding="2d", max_grid_size=2)(batch([torch.randn(3, 64, 256)], lengths=(5,)))


def test_gradients_are_the_same_to_the_last_bit_every_time():
    """Many texts share an image: their gradients meet there, and must be summed in one order."""
    net = model(max_pool=False)
    images = list(torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(5)))
    data = batch(images, lengths=(6,) * 300, index=[[row % 2] for row in range(300)])
    gradients = []
    for _ in range(6):
        net.zero_grad()
        net(data).logits["answers"].square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None])
    for again in gradients[1:]:
        assert all(torch.equal(first, other) for first, other in zip(gradients[0], again, strict=True))


def test_a_frozen_image_encoder_changes_in_nothing_while_the_rest_learns():
    net = model(freeze_image_encoder=True).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(batch([torch.randn(3, 96, 128)] * 3)).logits["answers"].sum().backward()
    optimizer.step()
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert "projection.weight" in changed and not any(name.startswith("image_encoder.") for name in changed)
    assert not any(p.requires_grad for _, p in net.parameter_groups()["cnn"])
