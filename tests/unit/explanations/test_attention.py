"""The last layer's attention, against its softmax from the layer's own parameters, in numpy."""

import numpy as np

TEXT = "is the bluegreen disc"


def softmax_of_the_last_layer(model, images, text) -> tuple[np.ndarray, int]:
    """Q h S S from what goes into the last layer and its own weights, in numpy, and the number of tokens."""
    layer = model.model.text_encoder.bert.encoder.layer[-1]
    seen = []
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = model.batch([(images, text)])
    try:
        output = model.output(batch)
    finally:
        hook.remove()
    hidden = seen[0].double().numpy()
    own = layer.attention.self

    def heads(linear):
        values = hidden @ linear.weight.detach().double().numpy().T + linear.bias.detach().double().numpy()
        return values.reshape(*hidden.shape[:2], 2, 16).transpose(0, 2, 1, 3)  # TINY: 2 heads of 16

    scores = heads(own.query) @ heads(own.key).transpose(0, 1, 3, 2) / 4
    mask = np.concatenate([batch.text_mask.repeat(len(hidden), 1).numpy(), output.pixel_mask.numpy()], axis=1)
    powers = np.exp(scores) * mask[:, None, None]
    return powers / powers.sum(-1, keepdims=True), batch.input_ids.shape[1]


def test_it_is_the_softmax_of_the_last_layer(models, pictures):
    model = models["vqa"]
    found = model.explain(pictures[0], TEXT, "attention")
    assert found.words == ("[CLS]", "is", "the", "bluegreen", "disc", "[SEP]")
    weights, length = softmax_of_the_last_layer(model, pictures[0], TEXT)
    tokens = model.processors["text"](TEXT)[0]
    assert length == len(tokens) > 6  # bluegreen is of several pieces
    mean = weights[0].mean(0)
    pieces = mean[3 : length - 2].mean(0)
    expected = np.stack([mean[0], mean[1], mean[2], pieces, mean[length - 2], mean[length - 1]])[:, length:]
    cells = found.images[0].cells
    assert cells.words.shape[1:] == (1, 2)  # 64 × 48, resized to 43 × 32, at stride 32
    np.testing.assert_allclose(cells.words.flatten(1).numpy(), expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(cells.answer, cells.words[0])  # it is read at [CLS]
    assert 0 < float(cells.words[0].sum()) < 1 and expected.std(1).min() > 1e-6


def test_of_two_images_each_has_its_own_grid(models, pictures):
    model = models["nlvr2"]
    found = model.explain([pictures[0], pictures[1]], TEXT, "attention")  # landscape and portrait, padded in one batch
    left, right = (image.cells for image in found.images)
    assert left.words.shape[1:] == (1, 2) and right.words.shape[1:] == (2, 1)
    assert [image.map.shape for image in found.images] == [(48, 64), (64, 48)]
    weights, length = softmax_of_the_last_layer(model, [pictures[0], pictures[1]], TEXT)
    grid = weights[:, :, 0, length:].mean(1).reshape(2, 2, 2)  # of [CLS]
    np.testing.assert_allclose(left.answer.numpy(), grid[0, :1], rtol=1e-4)
    np.testing.assert_allclose(right.answer.numpy(), grid[1, :, :1], rtol=1e-4)


def test_a_masked_word_is_read_at_its_place(models, pictures):
    found = models["pretrain"].explain(pictures[0], "a [MASK] [MASK] disc", "attention")
    cells = found.images[0].cells
    assert found.words[2] == "[MASK]"
    np.testing.assert_array_equal(cells.answer, cells.words[2])
    assert not np.array_equal(cells.answer, cells.words[0])
