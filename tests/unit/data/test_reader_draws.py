"""What is drawn anew, and when: orders, masks, negatives, augmentation and pixels, by epoch, data set, sample and seed."""

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from pixelbert_plugin import registry
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.negatives import Negatives
from pixelbert_plugin.data.reader import BatchReader, MicroBatch
from pixelbert_plugin.data.sampler import evaluation_order, train_order, weighted_epoch
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.types import Sample
from unit.data.builders.test_vqa2 import builder
from unit.data.test_loader import make_loader, take
from unit.data.test_mixture import ListBuilder


def mixture_loader(root: Path, seed: int = 1, is_masked: bool = True, **image) -> Loader:
    """Pre-training on the tiny VQA 2.0 under two names, so that ids repeat from one data set to the other."""
    mixture = Mixture.build({"a": builder(root), "b": builder(root)}, "train")
    text = registry.build("processor", "bert_tokenizer", {}, "t")
    text.fit(sample.text for sample in mixture)
    task = registry.build("task", "pretrain", {"mask_probability": 0.5}, "p", processors={"text": text})
    processor = registry.build("processor", "image", {"short_edge": 32, "long_edge": 64, **image}, "i")
    prepare = task.prepare if is_masked else lambda batch, seeds: None
    reader = BatchReader(mixture, text, processor, prepare, seed, Negatives(mixture, 1))
    return Loader(reader, torch.device("cpu"))


def rows(loader: Loader, epoch: int, texts_per_image: int | None = 3) -> dict[tuple, dict]:
    """By data set and sample id, what an epoch gave the sample: its two rows of words, its image's seed and pixels."""
    updates = len(loader) // 12
    found = {}
    for batch in (batch for update in take(loader, epoch * len(loader), updates, 12, 12, texts_per_image) for batch in update):
        for row, sample in enumerate(batch.samples):
            image = int(batch.image_index[2 * row, 0])
            words = [ids[mask].tolist() for ids, mask in zip(batch.input_ids, batch.text_mask, strict=True)]
            name = "a" if not any(known == ("a", sample.sample_id) for known in found) else "b"
            found[name, sample.sample_id] = {
                "own": words[2 * row],
                "other": words[2 * row + 1],
                "seed": int(batch.image_seeds[image]),
                "pixels": batch.images[image],
            }
    return found


def share_alike(one: dict, other: dict, key: str) -> float:
    """In how many samples both epochs drew the same."""
    assert one.keys() == other.keys() and len(one) > 50
    alike = [torch.equal(torch.as_tensor(one[name][key]), torch.as_tensor(other[name][key])) for name in one]
    return sum(alike) / len(alike)


def test_every_epoch_masks_augments_and_samples_anew_and_a_replay_alike(vqa2_root):
    options = {"horizontal_flip": 0.5, "min_crop": 0.5}
    first, replay, later = (rows(mixture_loader(vqa2_root, **options), epoch) for epoch in (0, 0, 1))
    other_seed = rows(mixture_loader(vqa2_root, seed=2, **options), 0)
    for key in ("own", "other", "seed", "pixels"):
        assert share_alike(first, replay, key) == 1, key
    for changed in (later, other_seed):
        assert share_alike(first, changed, "seed") == 0
        assert share_alike(first, changed, "pixels") < 0.1
        assert share_alike(first, changed, "own") < 0.5  # masks: a short question may be masked alike twice


def test_every_epoch_puts_other_negatives_beside_a_text(vqa2_root):
    first, replay, later = (rows(mixture_loader(vqa2_root, is_masked=False), epoch) for epoch in (0, 0, 1))
    assert share_alike(first, later, "own") == 1 and share_alike(first, replay, "other") == 1
    assert share_alike(first, later, "other") < 0.6  # of the few texts that differ
    other_seed = rows(mixture_loader(vqa2_root, seed=2, is_masked=False), 0)
    assert share_alike(first, other_seed, "other") < 0.6


def test_draws_of_one_id_differ_between_data_sets(vqa2_root):
    loader = mixture_loader(vqa2_root)
    half = len(loader.mixture) // 2
    batch = loader.reader.read(MicroBatch(0, np.array([*range(half), *range(half, 2 * half)]), True)).batch
    seeds = batch.image_seeds[batch.image_index[::2, 0]]
    assert (seeds[:half] != seeds[half:]).all()
    masked = batch.input_ids[::2]
    alike = sum(torch.equal(masked[row], masked[half + row]) for row in range(half))
    assert alike < half / 2


def test_evaluation_reads_images_as_they_are_and_draws_the_same_every_time(vqa2_root):
    changed = {"horizontal_flip": 1.0, "min_crop": 0.5, "color_jitter": 0.9}
    plain, augmented = make_loader(vqa2_root), make_loader(vqa2_root, **changed)
    for one, other in zip(plain.evaluate(5), augmented.evaluate(5), strict=True):
        assert torch.equal(one.images, other.images) and one.sample_ids == other.sample_ids
    trained = take(augmented, 0, 1)[0][0]
    as_it_is = {
        tuple(sample.image_ids): batch.images[int(batch.image_index[row, 0])]
        for batch in plain.evaluate(1)
        for row, sample in enumerate(batch.samples)
    }
    assert not any(
        torch.equal(trained.images[int(index)], as_it_is[tuple(sample.image_ids)])
        for sample, index in zip(trained.samples, trained.image_index[:, 0], strict=True)
    )


def plain_samples(first_image: int, texts: list[list[str]]) -> list[Sample]:
    """One sample a text; `texts` by image."""
    return [
        Sample(sample_id=f"{first_image + image}/{place}", image_ids=(first_image + image,), images=("x",), text=text)
        for image, own in enumerate(texts)
        for place, text in enumerate(own)
    ]


def test_negatives_come_from_all_of_the_samples_own_data_set_and_from_no_other():
    sets = {
        "captions": plain_samples(
            0, [["a dog runs", "Two cats"], ["a DOG runs", "red bus"], ["blue bus"], ["green bus", "sky"]]
        ),
        "phrases": plain_samples(10, [["wheel"], ["door", "roof"], ["tail"]]),
    }
    mixture = Mixture.build({name: ListBuilder(samples) for name, samples in sets.items()}, "train")
    negatives, two = Negatives(mixture, 1), Negatives(mixture, 2)
    for index in range(len(mixture)):
        name, sample = mixture.locate(index)
        own = {other.text.lower() for other in sets[name] if other.image_ids == sample.image_ids}
        # an image's own texts are no negatives, nor is another image's text that reads like one of them in any case
        allowed = {other.text for other in sets[name] if other.text.lower() not in own}
        drawn = Counter(mixture[negatives.draw(index, seed)[0]].text for seed in range(300))
        assert set(drawn) == allowed
        # uniform: six standard deviations of a binomial
        share = 1 / len(allowed)
        assert max(abs(count - 300 * share) for count in drawn.values()) <= 6 * (300 * share * (1 - share)) ** 0.5 + 1e-9
        several = two if len(allowed) > 1 else negatives
        drawn = several.draw(index, 7)
        assert len(set(drawn)) == min(2, len(allowed)) and drawn == several.draw(index, 7)


def test_half_of_a_pretraining_batch_is_true_pairs_and_15_percent_of_words_are_masked(vqa2_root):
    loader = mixture_loader(vqa2_root)
    texts = {sample.sample_id: sample.text for sample in loader.mixture}
    words = chosen = 0
    mixture, reader = loader.mixture, loader.reader
    reader.prepare = registry.build("task", "pretrain", {}, "p", processors={"text": reader.text}).prepare
    for epoch in range(12):
        batch = reader.read(MicroBatch(epoch, np.arange(len(mixture)), True)).batch
        assert len(batch.input_ids) == 2 * len(batch) == 2 * len(mixture)
        assert torch.equal(batch.image_index[::2], batch.image_index[1::2])  # a false pair has the image of its true one
        words += int(sum(len(reader.text(texts[sample_id])[0]) - 2 for sample_id in batch.sample_ids))
        chosen += len(batch.targets["mlm"])
    expected, deviation = 0.15 * words, (words * 0.15 * 0.85) ** 0.5
    assert abs(chosen - expected) < 5 * deviation and words > 3000


def test_every_pair_of_epochs_and_seeds_has_an_order_of_its_own():
    numbers = np.repeat(np.arange(60), 3)
    sizes = np.stack([numbers % 3, numbers % 2], axis=1) + 1
    for options in ({}, {"sizes_M2": sizes}):
        orders = [train_order(numbers, seed, epoch, 2, 12, **options).tolist() for seed in (0, 1) for epoch in range(4)]
        assert all(one != other for one, other in combinations(orders, 2))
        assert orders[0] == train_order(numbers, 0, 0, 2, 12, **options).tolist()


def test_chunks_of_one_image_are_drawn_from_its_texts_and_do_not_follow_each_other():
    numbers = np.repeat(np.arange(50), 6)
    orders = [train_order(numbers, 1, epoch, 2, 8) for epoch in range(5)]
    pairs = [{frozenset(order[at : at + 2].tolist()) for at in range(0, 300, 2)} for order in orders]
    assert len(set.intersection(*pairs)) < 5  # which texts share a chunk is drawn too
    for order in orders:
        images = numbers[order[::2]]
        assert (numbers[order[1::2]] == images).all()  # a chunk is of one image
        assert (images[1:] == images[:-1]).mean() < 0.15  # and the next chunk of another: by chance one in fifty


def test_batches_of_a_window_come_in_random_order_not_by_size():
    numbers = np.arange(400)
    sizes = np.stack([numbers % 20 + 1, np.full(400, 9)], axis=1)
    heights = [sizes[ids, 0].mean() for ids in np.split(train_order(numbers, 5, 0, 1, 10, sizes), 40)]
    assert heights != sorted(heights) and heights != sorted(heights, reverse=True)
    last = [sizes[train_order(numbers, 5, epoch, 1, 10, sizes)[-10:], 0].mean() for epoch in range(6)]
    assert len(set(last)) > 1  # a whole batch at the end is drawn like the others
    # within 64 batches all images of a height stand together: no batch of 10 spans more than two heights
    spans = [np.ptp(sizes[ids, 0]) for ids in np.split(train_order(numbers, 5, 0, 1, 10, sizes), 40)]
    assert max(spans) <= 1


def test_evaluation_brings_images_of_one_size_together():
    images = np.array([0, 1, 2, 3, 1, 0])
    sizes = np.array([[2, 1], [1, 2], [1, 1], [2, 1], [1, 2], [2, 1]])
    assert evaluation_order(images, sizes).tolist() == [2, 1, 4, 0, 5, 3]


@pytest.mark.parametrize(("weight", "passes"), [(0.25, 4), (0.5, 2), (2.0, 0.5), (1.5, 2)])
def test_a_weighted_data_set_is_walked_through_whole_before_it_repeats(weight, passes):
    size, epochs = 20, 4
    parts = {"set": (size, weight)}
    drawn = [weighted_epoch(np.arange(size), parts, 3, epoch, 1) for epoch in range(epochs)]
    assert [len(ids) for ids in drawn] == [round(size * weight)] * epochs
    walked = np.concatenate(drawn) % size
    whole = [walked[at : at + size] for at in range(0, len(walked) - size + 1, size)]
    assert whole and all(sorted(one.tolist()) == list(range(size)) for one in whole)
    assert len({tuple(one.tolist()) for one in whole}) == len(whole)  # in another order each time
    named = weighted_epoch(np.arange(size), {"other": (size, weight)}, 3, 0, 1)
    assert named.tolist() != drawn[0].tolist()  # two sets of one size do not walk alike


def test_augmentation_spreads_as_its_options_say():
    """Shares over 400 seeds, within five standard deviations."""
    image = torch.full((3, 10, 20), 100, dtype=torch.uint8)
    image[:, :, :10] = 50

    def augmented(**options):
        processor = registry.build("processor", "image", options, "i")
        return [processor.augment(image, seed) for seed in range(400)]

    flips = sum(int(one[0, 0, 0]) == 100 for one in augmented(horizontal_flip=0.25))
    assert abs(flips - 100) < 5 * (400 * 0.25 * 0.75) ** 0.5
    assert all(torch.equal(one, image) for one in augmented())
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)  # of one value: contrast and saturation have nothing to change
    jitter = registry.build("processor", "image", {"color_jitter": 0.3}, "i")
    factors = [float(jitter.augment(grey, seed)[0, 0, 0]) / 100 for seed in range(400)]
    assert min(factors) >= 0.69 and max(factors) <= 1.31 and min(factors) < 0.75 and max(factors) > 1.25
    sizes = np.array([one.shape[-2:] for one in augmented(min_crop=0.5)])
    assert sizes.min(0).tolist() == [5, 10] and sizes.max(0).tolist() == [10, 20]


def test_a_pair_with_one_unreadable_image_of_two_weighs_nothing(own_vqa2_root):
    loader = make_loader(own_vqa2_root)
    loader.mixture.on_bad_image["vqa2"] = "skip"
    first, other, third = loader.mixture[0], loader.mixture[5], loader.mixture[11]
    other.images[0].write_bytes(b"no image")

    def pair(name: str, left: Sample, right: Sample) -> Sample:
        ids, images = (left.image_ids[0], right.image_ids[0]), (left.images[0], right.images[0])
        return Sample(sample_id=name, image_ids=ids, images=images, text="x")

    pairs = [pair("bad right", first, other), pair("bad left", other, third), pair("whole", first, third)]
    loader.mixture.parts["vqa2"] = Samples.of(pairs)
    reading = loader.reader.read(MicroBatch(0, np.arange(3), train=False))
    assert reading.batch.weights.tolist() == [0.0, 0.0, 1.0] and len(reading.bad_images) == 1


def test_a_pair_that_stands_twice_in_an_epoch_draws_anew_each_time(vqa2_root):
    """At a weight above 1 its further times are numbered index + M, index + 2 M, …"""
    loader = mixture_loader(vqa2_root)
    size = len(loader.mixture)
    first, second, third = (
        loader.reader.read(MicroBatch(0, np.arange(size) + times * size, True)).batch.input_ids[::2] for times in range(3)
    )
    for one, other in combinations((first, second, third), 2):
        assert sum(torch.equal(a, b) for a, b in zip(one, other, strict=True)) < size / 2  # masks
    loader = mixture_loader(vqa2_root, is_masked=False)
    both = [loader.reader.read(MicroBatch(0, np.arange(size) + times * size, True)).batch.input_ids for times in range(2)]
    assert torch.equal(both[0][::2], both[1][::2])
    alike = sum(torch.equal(a, b) for a, b in zip(both[0][1::2], both[1][1::2], strict=True))
    assert alike < 0.6 * size  # negatives, of the few texts that differ
