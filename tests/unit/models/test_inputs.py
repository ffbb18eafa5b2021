"""Plain tensors as a batch."""

import pytest
import torch

from pixelbert_plugin.models.inputs import batch_of, sizes_of

IDS = torch.tensor([[2, 7, 3], [2, 3, 0]])


def test_a_batch_of_two_texts_with_their_images():
    mask = torch.zeros(2, 4, 6, dtype=torch.int64)
    mask[0, :3, :5] = mask[1, :4, :2] = 1
    batch = batch_of(IDS, (IDS != 0).long(), torch.zeros(2, 3, 4, 6), mask)
    assert batch.image_sizes.tolist() == [[3, 5], [4, 2]] and batch.image_index.tolist() == [[0], [1]]
    assert batch.text_mask.tolist() == [[True] * 3, [True, True, False]] and batch.weights.tolist() == [1, 1]


def test_pairs_of_images_lie_behind_one_another():
    batch = batch_of(IDS, None, torch.arange(4.0).view(2, 2, 1, 1, 1).expand(2, 2, 3, 5, 7), torch.ones(2, 2, 5, 7))
    assert batch.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3] and batch.image_index.tolist() == [[0, 1], [2, 3]]
    assert batch.image_sizes.tolist() == [[5, 7]] * 4 and batch.text_mask.all()
    assert sizes_of(torch.zeros(2, 3, 5, 7), None).tolist() == [[5, 7], [5, 7]]


@pytest.mark.parametrize("images", [0, 3])
def test_images_that_do_not_divide_among_the_texts_are_refused(images):
    with pytest.raises(ValueError, match=f"pixel_values: {images} images do not divide among 2 texts; image_index says"):
        batch_of(IDS, None, torch.zeros(images, 3, 5, 7))
    assert batch_of(IDS, None, torch.zeros(3, 3, 5, 7), image_index_RN=torch.tensor([[2], [2]])).image_index.tolist() == [
        [2],
        [2],
    ]
