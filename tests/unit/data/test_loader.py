"""Order, reading and batching: pure functions of the position."""

import multiprocessing
import os
import pickle
import signal
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelbert_plugin import registry
from pixelbert_plugin.data import mixture as mixture_module
from pixelbert_plugin.data import workers as workers_module
from pixelbert_plugin.data.loader import Loader, padding_share_of, share
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.negatives import Negatives
from pixelbert_plugin.data.reader import BatchReader, MicroBatch
from pixelbert_plugin.data.sampler import by_text_length, evaluation_order, train_order, weighted_epoch
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.seeding import derive
from unit.data.builders.test_vqa2 import builder


@settings(max_examples=100, deadline=None)
@given(
    images=st.lists(st.integers(0, 12), min_size=1, max_size=80),
    seed=st.integers(0, 1000),
    epoch=st.integers(0, 50),
    texts=st.one_of(st.none(), st.integers(1, 6)),
    sized=st.booleans(),
)
def test_order_is_a_permutation_in_chunks_of_one_image(images, seed, epoch, texts, sized):
    numbers = np.array(images)
    sizes = np.stack([numbers % 3, numbers % 2], axis=1) if sized else None
    order = train_order(numbers, seed, epoch, texts, 8, sizes)
    assert sorted(order.tolist()) == list(range(len(images)))
    assert np.array_equal(order, train_order(numbers, seed, epoch, texts, 8, sizes))
    if not sized:
        # by hand: walk the order and count runs of one image; as few chunks as the texts of each image allow
        runs = 1 + sum(numbers[a] != numbers[b] for a, b in pairwise(order))
        most = sum(-(-images.count(image) // (texts or 10**6)) for image in set(images))
        assert runs <= most


def test_orders_differ_by_epoch_and_seed():
    numbers = np.arange(200)
    orders = [train_order(numbers, seed, epoch, 1, 8).tolist() for seed, epoch in ((1, 0), (1, 1), (2, 0))]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_every_chunk_is_complete():
    numbers = np.repeat(np.arange(20), 5)
    order = train_order(numbers, 3, 0, 5, 10)
    assert all(len(set(numbers[order[at : at + 5]])) == 1 for at in range(0, 100, 5))


def test_buckets_hold_images_of_one_size_and_the_short_batch_is_last():
    numbers = np.arange(103)
    sizes = np.stack([np.where(numbers % 4 < 2, 30, 50), np.full(103, 40)], axis=1)
    order = train_order(numbers, 3, 0, 1, 10, sizes)
    mixed = sum(len(set(sizes[order[at : at + 10], 0])) > 1 for at in range(0, 103, 10))
    assert mixed <= 1
    plain = train_order(numbers, 3, 0, 1, 10)
    assert sum(len(set(sizes[plain[at : at + 10], 0])) > 1 for at in range(0, 103, 10)) > 5


@settings(max_examples=100, deadline=None)
@given(
    images=st.lists(st.integers(0, 6), min_size=1, max_size=40),
    lengths=st.lists(st.integers(1, 30), min_size=40, max_size=40),
)
def test_images_of_one_size_come_by_their_longest_text(images, lengths):
    numbers, lengths = np.array(images), np.array(lengths[: len(images)])
    sizes = np.stack([numbers % 3, numbers % 2], axis=1)
    order = by_text_length(numbers, sizes, lengths)
    assert sorted(order.tolist()) == list(range(len(images)))
    # by hand: runs of one image, each as (height, width, longest text, place)
    runs, start = [], 0
    for stop in range(1, len(images) + 1):
        if stop == len(images) or images[stop] != images[start]:
            runs.append((*sizes[start].tolist(), int(lengths[start:stop].max()), start, stop))
            start = stop
    assert order.tolist() == [place for *_, first, last in sorted(runs) for place in range(first, last)]


@settings(max_examples=200, deadline=None)
@given(count=st.integers(1, 40), world_size=st.integers(1, 5), micro=st.one_of(st.none(), st.integers(1, 9)))
def test_an_update_is_shared_out_once_and_neighbours_are_computed_together(count, world_size, micro):
    shares = [share(np.arange(count), rank, world_size, micro) for rank in range(world_size)]
    steps = list(zip(*shares, strict=True))  # every process has as many micro-batches
    largest = -(-count // world_size)
    assert len(steps) == -(-largest // (micro or largest))
    given_out = [place for step in steps for places, is_filler in step if not is_filler for place in places.tolist()]
    assert given_out == list(range(count))
    for step in steps:
        assert all(1 <= len(places) <= (micro or largest) for places, _ in step)
        assert max(len(places) for places, _ in step) - min(len(places) for places, is_filler in step if not is_filler) <= 1


def test_micro_batches_hold_texts_of_like_length_and_an_updates_samples_and_draws_stay(vqa2_root):
    plain, sorted_ = make_loader(vqa2_root, min_crop=0.6), make_loader(vqa2_root, min_crop=0.6)
    lengths = {}
    for row, sample in enumerate(sorted_.mixture):
        assert sorted_.mixture.text_bytes_M[row] == len(sample.text.encode())
        lengths[sample.sample_id] = int(sorted_.mixture.images_M[row] * 7 % 12)  # the fixture's are too much alike
    sorted_.mixture.text_bytes_M = np.array(list(lengths.values()))
    plain.sizes_M2 = sorted_.sizes_M2 = np.full((36, 2), 48)
    plain.alike = lambda ids: np.arange(len(ids))
    drawn, longest = [], []
    for loader in (plain, sorted_):
        updates = take(loader, 0, 3, batch=12, micro=3, texts=3)
        longest.append([[max(map(lengths.get, batch.sample_ids)) for batch in update] for update in updates])
        drawn.append([{key: seed for batch in update for key, seed in seeds(batch)} for update in updates])
    assert drawn[0] == drawn[1] and all(len(update) == 12 for update in drawn[0])
    assert [sorted(update) for update in longest[0]] == longest[1] != longest[0]


def seeds(batch):
    """Of each sample, the seed that its image is drawn with."""
    return zip(batch.sample_ids, batch.image_seeds[batch.image_index[:, 0]].tolist(), strict=True)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3),
    weights=st.lists(st.sampled_from([0.1, 0.3, 0.5, 1.0, 1.7, 2.5]), min_size=3, max_size=3),
    seed=st.integers(0, 100),
)
def test_weights_walk_through_each_data_set_evenly(sizes, weights, seed):
    parts = {f"set{number}": (size, weight) for number, (size, weight) in enumerate(zip(sizes, weights, strict=False))}
    images = np.arange(sum(sizes)) // 2
    epochs = [weighted_epoch(images, parts, seed, epoch, 2) for epoch in range(7)]
    first = 0
    for size, weight in parts.values():
        own = [ids[(ids % len(images) >= first) & (ids % len(images) < first + size)] for ids in epochs]
        per_epoch = max(1, round(size * weight))
        assert [len(ids) for ids in own] == [per_epoch] * 7
        # one pass after another: no sample is ever two passes ahead of another
        seen = np.bincount(np.concatenate(own) % len(images) - first, minlength=size)
        assert seen.max() - seen.min() <= 1 and seen.sum() == 7 * per_epoch
        assert all(len(set(ids.tolist())) == len(ids) for ids in own)  # repeats within an epoch are told apart
        first += size


def test_negatives_are_texts_of_other_images_and_no_text_of_the_own(vqa2_root):
    loader = make_loader(vqa2_root, negatives=4)
    texts = {}
    for sample in loader.mixture:
        texts.setdefault(sample.image_ids, set()).add(sample.text.lower())
    for index in range(len(loader)):
        drawn = loader.reader.negatives.draw(index, seed=index)
        assert drawn == loader.reader.negatives.draw(index, seed=index) and len(set(drawn)) == 4
        sample = loader.mixture[index]
        for other in drawn:
            assert loader.mixture[other].image_ids != sample.image_ids
            assert loader.mixture[other].text.lower() not in texts[sample.image_ids]
    batch = take(loader, 0, 1, batch=3, micro=3)[0][0]
    assert len(batch) == 3 and batch.input_ids.shape[0] == 15
    assert batch.image_index.view(3, 5).eq(batch.image_index.view(3, 5)[:, :1]).all()
    own = [loader.reader.text(sample.text)[0] for sample in batch.samples]
    assert [row[: len(ids)].tolist() for row, ids in zip(batch.input_ids[::5], own, strict=True)] == own
    with pytest.raises(UserError, match="fewer than 40 texts of other images"):
        Negatives(loader.mixture, 40).draw(0, seed=1)


def test_evaluation_keeps_an_images_pairs_together():
    numbers = np.array([2, 0, 2, 1, 0])
    assert evaluation_order(numbers).tolist() == [1, 4, 3, 0, 2]


def test_derived_seeds_are_fixed_for_ever():
    """Written down once: a change here would break the resume of every run."""
    assert derive(1, "image", 0, "vqa2", 42) == 2469040639476365631
    assert derive(1, "a", 23) != derive(1, "a2", 3) and 0 <= derive(5) < 2**63


def make_loader(root, workers=0, split="train", seed=1, negatives=0, **image):
    mixture = Mixture.build({"vqa2": builder(root)}, split)
    text = registry.build("processor", "bert_tokenizer", {"max_length": 8}, "t")
    text.fit(sample.text for sample in mixture)
    processor = registry.build("processor", "image", {"short_edge": 48, "long_edge": 96, **image}, "i")
    others = Negatives(mixture, negatives) if negatives else None
    reader = BatchReader(mixture, text, processor, lambda batch, seeds: None, seed, others)
    return Loader(reader, torch.device("cpu"), workers)


def take(loader, position, updates, batch=8, micro=3, texts=2):
    iterator = loader.updates(position, batch, micro, texts, with_samples=True)
    return [list(loader.one_ahead(next(iterator)[0])) for _ in range(updates)]


def test_updates_cover_every_epoch_exactly_and_resume_anywhere(vqa2_root):
    loader = make_loader(vqa2_root, horizontal_flip=0.5, min_crop=0.7)
    updates = take(loader, 0, 12)
    ids = [[sample_id for batch in update for sample_id in batch.sample_ids] for update in updates]
    assert [len(update) for update in ids[:5]] == [8, 8, 8, 8, 4]  # 36 pairs: the epoch's last update is short
    assert [len(batch) for batch in updates[0]] == [3, 3, 2]
    for epoch in range(2):
        seen = [sample_id for update in ids[5 * epoch : 5 * epoch + 5] for sample_id in update]
        assert len(seen) == len(set(seen)) == 36
    assert ids[0] != ids[5]
    position = 0
    for done, update in enumerate(ids[:7], start=1):
        position += len(update)
        again = take(make_loader(vqa2_root, horizontal_flip=0.5, min_crop=0.7), position, 2)
        for update_a, update_b in zip(again, updates[done : done + 2], strict=True):
            for a, b in zip(update_a, update_b, strict=True):
                assert a.sample_ids == b.sample_ids and torch.equal(a.images, b.images)
                assert torch.equal(a.image_seeds, b.image_seeds) and torch.equal(a.input_ids, b.input_ids)


def test_a_weighted_mixture_with_negatives_and_masks_resumes_anywhere(vqa2_root):
    def make():
        mixture = Mixture.build({"a": builder(vqa2_root), "b": builder(vqa2_root)}, "train")
        text = registry.build("processor", "bert_tokenizer", {}, "t")
        text.fit(sample.text for sample in mixture)
        task = registry.build("task", "pretrain", {"mask_probability": 0.5}, "p", processors={"text": text})
        processor = registry.build("processor", "image", {"short_edge": 32, "long_edge": 64}, "i")
        reader = BatchReader(mixture, text, processor, task.prepare, 1, Negatives(mixture, 1))
        return Loader(reader, torch.device("cpu"), weights={"a": 0.5, "b": 1.5})

    loader = make()
    assert len(loader) == 18 + 54  # of 36 pairs each
    updates = take(loader, 0, 20)  # an epoch is nine updates
    position = 0
    for done, update in enumerate(updates[:11], start=1):
        position += sum(map(len, update))
        for a, b in zip(take(make(), position, 1)[0], updates[done], strict=True):
            assert a.sample_ids == b.sample_ids and torch.equal(a.input_ids, b.input_ids)
            assert all(torch.equal(a.targets[name], b.targets[name]) for name in a.targets)
    # a pair that stands twice in an epoch is masked and put beside another text anew
    rows = {}
    for update in updates[:9]:
        for batch in update:
            for row, sample_id in enumerate(batch.sample_ids):
                rows.setdefault(sample_id, []).append(batch.input_ids[2 * row : 2 * row + 2].flatten().tolist())
    assert any(len(seen) > 1 and seen[0] != seen[1] for seen in rows.values())


def test_workers_change_nothing(vqa2_root):
    options = {"horizontal_flip": 0.5, "color_jitter": 0.4}
    alone, shared = (take(make_loader(vqa2_root, workers, **options), 0, 6) for workers in (0, 2))
    for update_a, update_b in zip(alone, shared, strict=True):
        for a, b in zip(update_a, update_b, strict=True):
            assert a.sample_ids == b.sample_ids and torch.equal(a.images, b.images)


@pytest.mark.parametrize("workers", [0, 1])
def test_samples_do_not_travel_and_are_there_where_results_are_made(vqa2_root, workers):
    loader = make_loader(vqa2_root, workers)

    def prepare(batch, seeds):
        batch.targets["texts"] = torch.tensor([len(sample.text) for sample in batch.samples])

    loader.reader.prepare = prepare
    reading, wanted = loader.reader[MicroBatch(0, np.array([2, 1]), True)], [loader.mixture[2], loader.mixture[1]]
    assert reading.batch.samples == [] and reading.batch.sample_ids == [sample.sample_id for sample in wanted]
    assert b"What color" not in pickle.dumps(reading) and b"COCO_train2014" not in pickle.dumps(reading)
    ((batch, *_), _) = next(loader.updates(0, 8, 3, 2))
    assert batch.samples == [] and len(batch.sample_ids) == 3
    for batch in loader.evaluate(5):
        assert [sample.sample_id for sample in batch.samples] == batch.sample_ids
        assert batch.targets["texts"].tolist() == [len(sample.text) for sample in batch.samples]


def test_images_are_read_without_their_texts(vqa2_root):
    loader = make_loader(vqa2_root, negatives=4)
    (whole,) = loader.read([np.array([0, 5, 1])])
    loader.reader.text = SimpleNamespace(pad_token_id=0)
    loader.reader.negatives = loader.reader.prepare = None
    (batch,) = loader.read_images([np.array([0, 5, 1])])
    assert torch.equal(batch.images, whole.images) and torch.equal(batch.image_sizes, whole.image_sizes)
    assert batch.sample_ids == whole.sample_ids and batch.weights.tolist() == [1, 1, 1]
    assert batch.input_ids.shape == (0, 0) and batch.image_index.shape == (0, 1) and not batch.targets


def draws(loader, updates, micro, texts=1) -> dict[tuple, tuple]:
    """By (update, image): the seed that pixel sampling draws with, and the sum of the augmented pixels."""
    found = {}
    for number, update in enumerate(take(loader, 0, updates, batch=8, micro=micro, texts=texts)):
        for batch in update:
            for row, sample in enumerate(batch.samples):
                place = int(batch.image_index[row, 0])
                height, width = batch.image_sizes[place].tolist()
                pixels = batch.images[place, :, :height, :width].contiguous()
                drawn = (int(batch.image_seeds[place]), float(pixels.double().sum()))
                assert found.setdefault((number, sample.image_ids), drawn) == drawn
    return found


def test_an_image_is_sampled_and_augmented_anew_in_each_update_and_alike_within_one(vqa2_root):
    """The paper draws in each step. Three questions an image, one at a time: an image is in up to three updates of an epoch."""
    options = {"min_crop": 0.6, "color_jitter": 0.4}
    found = draws(make_loader(vqa2_root, **options), 10, 3)
    by_image = {}
    for (number, image), drawn in found.items():
        by_image.setdefault(image, {})[number] = drawn
    assert len(by_image) == 12 and max(len(drawn) for drawn in by_image.values()) >= 5
    for drawn in by_image.values():  # of two epochs
        assert len({seed for seed, _ in drawn.values()}) == len({pixels for _, pixels in drawn.values()}) == len(drawn)
    # one after the other, all at once, or spread over three processes: an update draws the same
    assert draws(make_loader(vqa2_root, **options), 10, None) == draws(make_loader(vqa2_root, **options), 10, 1) == found
    shared = {}
    for rank in range(3):
        loader = make_loader(vqa2_root, **options)
        loader.rank, loader.world_size = rank, 3
        part = draws(loader, 10, 2)
        assert all(shared.get(key, drawn) == drawn for key, drawn in part.items())
        shared |= part
    assert shared == found


def test_the_group_of_an_update_is_its_samples_of_the_same_images(vqa2_root):
    loader = make_loader(vqa2_root)
    first, second = loader.mixture.images_M[0], loader.mixture.images_M[3]
    assert loader.mixture.images_M[:6].tolist() == [first] * 3 + [second] * 3 and first != second
    again = len(loader.mixture.images_M)  # what a sample's number grows by each time that it stands in an epoch again
    assert loader.leaders(np.array([4, 1, 0, 5, 1 + again, 2])).tolist() == [4, 1, 1, 4, 1, 1]


def test_an_image_of_two_pairs_of_an_update_is_drawn_for_by_pair(vqa2_root):
    """As NLVR2 has them: however the pairs fall into micro-batches, each draws what it draws alone."""
    loader = make_loader(vqa2_root)
    a, b, c = (loader.mixture[index] for index in (0, 3, 6))

    def pair(name, one, other):
        ids, files = (one.image_ids[0], other.image_ids[0]), (one.images[0], other.images[0])
        return type(a)(sample_id=name, image_ids=ids, images=files, text="x")

    loader.mixture.parts["vqa2"] = Samples.of([pair("ab", a, b), pair("ac", a, c)] + [a] * 34)
    ids = np.array([0, 1])
    both = loader.reader.read(MicroBatch(0, ids, True, leaders=ids)).batch
    alone = [loader.reader.read(MicroBatch(0, ids[at : at + 1], True, leaders=ids[at : at + 1])).batch for at in (0, 1)]
    assert both.image_seeds[both.image_index].tolist() == [batch.image_seeds[batch.image_index][0].tolist() for batch in alone]
    assert len(set(both.image_seeds.tolist())) == 4 and len(loader.reader.read(MicroBatch(0, ids, False)).batch.images) == 3


def test_an_image_is_decoded_once_a_batch_and_indexed(vqa2_root):
    batch = take(make_loader(vqa2_root), 0, 1, batch=9, micro=9, texts=3)[0][0]
    assert len(batch) == 9 and len(batch.images) == len(batch.image_seeds) == 3
    by_image = {}
    for row, sample in enumerate(batch.samples):
        by_image.setdefault(sample.image_ids, set()).add(int(batch.image_index[row, 0]))
    assert all(len(places) == 1 for places in by_image.values()) and len(by_image) == 3
    assert batch.text_mask.sum(1).tolist() == [int((row != 0).sum()) for row in batch.input_ids]


def test_bad_images_end_the_run_or_are_skipped_and_listed(own_vqa2_root):
    bad = own_vqa2_root / "coco/train2014/COCO_train2014_000000000103.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    for workers in (0, 2):
        with pytest.raises(UserError, match=r"000000000103.jpg: not a readable image .* needed by sample 10300\d of vqa2"):
            take(make_loader(own_vqa2_root, workers), 0, 5)
    loader = make_loader(own_vqa2_root)
    loader.mixture.on_bad_image["vqa2"] = "skip"
    updates = take(loader, 0, 5)
    weights = {i: w for u in updates for b in u for i, w in zip(b.sample_ids, b.weights.tolist(), strict=True)}
    assert {sample_id for sample_id, weight in weights.items() if weight == 0} == {103000, 103001, 103002}
    assert len(loader.skipped_images) == 1 and "000000000103.jpg" in next(iter(loader.skipped_images))


def test_two_images_per_text_are_both_read(vqa2_root):
    loader = make_loader(vqa2_root)
    first, other = loader.mixture[0], loader.mixture[5]
    pair = type(first)(
        sample_id="pair",
        image_ids=(first.image_ids[0], other.image_ids[0]),
        images=(first.images[0], other.images[0]),
        text="x",
    )
    loader.mixture.parts["vqa2"] = Samples.of([pair])
    batch = loader.reader.read(MicroBatch(0, np.array([0]), train=False)).batch
    assert batch.image_index.tolist() == [[0, 1]] and len(batch.images) == 2


def test_share_of_padding():
    image = registry.build("processor", "image", {"short_edge": 10, "long_edge": 20}, "i")
    read = SimpleNamespace(
        images=[torch.zeros(3, 20, 40), torch.zeros(3, 5, 20)],  # resized: 10 × 20 and 5 × 20
        text_mask=torch.tensor([[True, True], [True, False]]),
    )
    assert padding_share_of(read, image) == 0.25


def test_sizes_read_from_headers_are_those_of_the_batches(vqa2_root):
    loader = make_loader(vqa2_root)
    sizes = loader.mixture.resized_sizes(loader.reader.image)
    for index in range(0, len(loader), 5):
        batch = next(loader.read([np.array([index])]))
        assert batch.image_sizes[0].tolist() == sizes[index].tolist()


def test_sizes_are_read_once_until_a_folder_changes(own_vqa2_root, tmp_path, monkeypatch):
    loader, read = make_loader(own_vqa2_root), []
    original = mixture_module.upright_size
    monkeypatch.setattr(mixture_module, "upright_size", lambda path: read.append(path) or original(path))

    def sizes():
        read.clear()
        return loader.mixture.resized_sizes(loader.reader.image, tmp_path).tolist()

    first = sizes()
    assert len(read) == loader.mixture.images_M.max() + 1
    assert sizes() == first and read == []
    path = loader.mixture[0].images[0]
    image = Image.open(path)
    aside = path.with_name("aside.png")
    image.resize((image.width, 3 * image.height)).save(aside)
    aside.replace(path)
    changed = sizes()
    assert read and changed[0] != first[0] and changed[-1] == first[-1]
    path.unlink()
    assert sizes()[0] == [1, 1] and read  # left to the reader, which knows on_bad_image


def test_batches_go_on_where_a_killed_worker_left(own_vqa2_root, caplog):
    whole = [batch for update in take(make_loader(own_vqa2_root, horizontal_flip=0.5), 0, 9) for batch in update]
    loader = make_loader(own_vqa2_root, workers=2, horizontal_flip=0.5)
    iterator, found = loader.updates(0, 8, 3, 2), []
    for number in range(9):
        found += loader.one_ahead(next(iterator)[0])
        if number in (1, 4):
            workers = multiprocessing.active_children()
            os.kill(workers[number % len(workers)].pid, signal.SIGKILL)
    assert "a data-loader worker died" in caplog.text
    assert [batch.sample_ids for batch in found] == [batch.sample_ids for batch in whole]
    assert all(torch.equal(a.images, b.images) for a, b in zip(found, whole, strict=True))


def test_a_worker_that_hangs_inside_fork_is_replaced(own_vqa2_root, caplog, monkeypatch):
    hanging = []
    os.register_at_fork(after_in_child=lambda: hanging and time.sleep(1000), after_in_parent=lambda: hanging and hanging.pop())
    monkeypatch.setattr(workers_module, "START_SECONDS", 2.0)
    whole = [batch.sample_ids for update in take(make_loader(own_vqa2_root), 0, 5) for batch in update]
    hanging += [True, True]  # both workers of the first two
    found = [batch.sample_ids for update in take(make_loader(own_vqa2_root, workers=2), 0, 5) for batch in update]
    assert found == whole and hanging == []
    assert "2 of them hung while being started" in caplog.text
    assert all(child.is_alive() for child in multiprocessing.active_children())


def test_several_processes_share_an_update(own_vqa2_root):
    one = take(make_loader(own_vqa2_root), 0, 9)
    several = []
    for rank in range(3):
        loader = make_loader(own_vqa2_root)
        loader.rank, loader.world_size = rank, 3
        iterator = loader.updates(0, 8, 2, 2)
        several.append([next(iterator) for _ in range(9)])
    for number, update in enumerate(one):
        ids = [sample_id for batch in update for sample_id in batch.sample_ids]
        parts = [part[number] for part in several]
        weighted = [
            sample_id
            for batches in zip(*(batches for batches, _ in parts), strict=True)
            for batch in batches
            for sample_id, weight in zip(batch.sample_ids, batch.weights.tolist(), strict=True)
            if weight
        ]
        assert weighted == ids and {samples for _, samples in parts} == {len(ids)}
        assert len({len(batches) for batches, _ in parts}) == 1
