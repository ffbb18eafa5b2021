"""Retrieval: the loss and its gradient by hand, and every score against a forward of that pair alone."""

import json
import multiprocessing
import resource

import numpy as np
import pytest
import torch
from safetensors import safe_open

from pixelbert_plugin import registry
from pixelbert_plugin.errors import NonFiniteLossError, UserError
from pixelbert_plugin.evaluation.retrieval import ScoreMatrix, evaluate_matrix, num_scored, save_matrix, score_all_pairs
from pixelbert_plugin.precision.native import Fp32
from pixelbert_plugin.system.progress import NoProgress
from unit.data.test_loader import make_loader
from unit.models.test_pixelbert import model

FP32 = Fp32(torch.device("cpu"))


def task(**options):
    return registry.build("task", "retrieval", options, "task_config.retrieval", processors={})


class Rows:
    """A micro-batch of `count` images, as far as the loss looks at it."""

    def __init__(self, weights):
        self.weights, self.targets = torch.tensor(weights), {}

    def __len__(self):
        return len(self.weights)


def test_loss_counts_all_negatives_and_learns_from_the_hardest():
    scores = torch.tensor([[1.0, 0.5, 2.0, -1.0], [0.0, 3.0, 0.1, 0.2]])
    logits = torch.stack([torch.zeros(8), scores.flatten()], dim=1).requires_grad_()
    output = type("Output", (), {"logits": {"itm": logits}})
    loss = task(num_negatives=3, num_hardest=1).loss(output, Rows([1.0, 1.0]))["retrieval"]
    shares = scores.exp() / scores.exp().sum(1, keepdim=True)
    assert loss.item() == pytest.approx(float(-shares[:, 0].log().sum()), rel=1e-5)
    loss.backward()
    expected = torch.zeros(2, 4)
    expected[:, 0] = shares[:, 0] - 1
    expected[0, 2], expected[1, 1] = shares[0, 2], shares[1, 1]  # the highest-scored negative of each image
    torch.testing.assert_close(logits.grad[:, 1].view(2, 4), expected)
    assert float(task(num_negatives=3, num_hardest=1).loss(output, Rows([0.0, 0.0]))["retrieval"]) == 0


def test_options_are_checked():
    with pytest.raises(UserError, match=r"task_config.retrieval.num_hardest: 5 is invalid: must be at most num_negatives"):
        task(num_negatives=4)


def built(root, workers=0):
    loader = make_loader(root, workers, split="val")
    net = model(heads={"itm": 2}, vocab_size=loader.reader.text.vocab_size)
    return loader, net


def test_every_pair_has_the_score_of_its_own_forward(vqa2_root):
    loader, net = built(vqa2_root)
    matrix = score_all_pairs(net, task(), loader, 4, FP32)
    images = len({sample.image_ids for sample in loader.mixture})
    assert matrix.scores_IT.shape == (images, len(loader.mixture)) and matrix.scores_IT.dtype == np.float32
    for row in (0, images - 1):
        for column in (0, 3, 7, len(loader.mixture) - 1):
            first, text = int(matrix.first_sample_I[row]), int(matrix.samples_T[column])
            batch = next(iter(loader.read([np.array([first])])))
            ids = torch.tensor([loader.reader.text(loader.mixture[text].text)[0]])
            batch.input_ids, batch.text_mask = ids, torch.ones_like(ids, dtype=torch.bool)
            with torch.no_grad():
                logits = net(batch).logits["itm"][0]
            assert matrix.scores_IT[row, column] == pytest.approx(float(logits[1] - logits[0]), abs=1e-5)
    for column, row in enumerate(matrix.image_of_text_T):
        own = loader.mixture[int(matrix.first_sample_I[row])]
        assert loader.mixture[int(matrix.samples_T[column])].image_ids == own.image_ids


def test_each_image_goes_through_the_cnn_once_and_each_text_through_the_embeddings_once(vqa2_root):
    loader, net = built(vqa2_root)
    seen = {"images": 0, "texts": 0}
    net.image_encoder.register_forward_pre_hook(lambda _, inputs: seen.update(images=seen["images"] + len(inputs[0])))
    inner = net.embed_texts
    net.embed_texts = lambda ids: (seen.update(texts=seen["texts"] + len(ids)), inner(ids))[1]
    matrix = score_all_pairs(net, task(), loader, 4, FP32)
    assert seen == {"images": matrix.scores_IT.shape[0], "texts": matrix.scores_IT.shape[1]}


def test_blocks_outlive_a_kill_and_belong_to_their_weights(vqa2_root, tmp_path, monkeypatch):
    monkeypatch.setattr("pixelbert_plugin.evaluation.retrieval.IMAGES_PER_BLOCK", 2)
    loader, net = built(vqa2_root)
    whole = score_all_pairs(net, task(), loader, 8, FP32).scores_IT
    folder = tmp_path / "scores"

    class Killed(BaseException):
        pass

    calls = []

    def die_in_the_second_block(batch):
        calls.append(len(batch.image_seeds))
        if len(calls) == 2:
            raise Killed
        return type(net).encode_images(net, batch)

    net.encode_images = die_in_the_second_block
    with pytest.raises(Killed):
        score_all_pairs(net, task(), loader, 8, FP32, folder=folder)
    assert len(list(folder.glob("block_*.npy"))) == 1
    del net.encode_images
    first = next(folder.glob("block_*_00000.npy"))
    first.with_name(first.name.replace("00000", "00001")).write_bytes(first.read_bytes()[:300])  # torn
    (folder / "block_00002.npy").write_bytes(first.read_bytes())  # of a version whose blocks had no digest
    encoded = []
    net.image_encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    resumed = score_all_pairs(net, task(), loader, 8, FP32, folder=folder).scores_IT
    assert np.array_equal(resumed, whole) and sum(encoded) == len(whole) - 2
    encoded.clear()
    with torch.no_grad():
        net.projection.bias.add_(1)
    other = score_all_pairs(net, task(), loader, 8, FP32, folder=folder).scores_IT
    assert sum(encoded) == len(whole) and not np.array_equal(other, whole)


def test_a_validation_scores_the_first_images_only(vqa2_root):
    loader, net = built(vqa2_root)
    whole, part = (score_all_pairs(net, task(), loader, 8, FP32, max_images=limit) for limit in (None, 2))
    texts = [t for t, image in enumerate(whole.image_of_text_T) if image < 2]
    np.testing.assert_allclose(part.scores_IT, whole.scores_IT[:2, texts], atol=1e-5)
    assert part.image_of_text_T.max() == 1 and loader.mixture[0].image_ids == loader.mixture[int(part.samples_T[0])].image_ids


def test_results_and_the_written_matrix(vqa2_root, tmp_path):
    loader, net = built(vqa2_root)
    matrix = score_all_pairs(net, task(), loader, 8, FP32)
    matrix.scores_IT[:] = -np.arange(matrix.scores_IT.shape[1], dtype=np.float32)  # every image finds text 0
    evaluation = evaluate_matrix(task(), loader, matrix)
    first = loader.mixture[0]
    assert {result.prediction for result in evaluation.results} == {first.text}
    assert evaluation.results[0].truth == first.text and evaluation.metrics["image_to_text_r@1"] == 1 / len(matrix.scores_IT)
    with safe_open(save_matrix(matrix, loader, tmp_path / "p/val_vqa2.safetensors"), "np") as file:
        assert np.array_equal(file.get_tensor("scores"), matrix.scores_IT)
        assert json.loads(file.metadata()["text_ids"]) == [sample.sample_id for sample in loader.mixture]
        assert len(json.loads(file.metadata()["image_ids"])) == len(matrix.scores_IT)
    (tmp_path / "as_others").touch()
    assert (tmp_path / "p/val_vqa2.safetensors").stat().st_mode == (tmp_path / "as_others").stat().st_mode


def scored(loader, net, folder=None, batch_size=8, **options):
    """The scores, and how many images went through the CNN."""
    encoded = []
    handle = net.image_encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    try:
        return score_all_pairs(net, task(), loader, batch_size, FP32, folder=folder, **options), sum(encoded)
    finally:
        handle.remove()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("pixelbert_plugin.evaluation.retrieval.IMAGES_PER_BLOCK", 2)


def test_a_block_with_one_bit_flipped_is_scored_again(vqa2_root, tmp_path, small_blocks, caplog):
    loader, net = built(vqa2_root)
    whole, _ = scored(loader, net, tmp_path)
    block = next(tmp_path.glob("block_*_00001.npy"))
    content = block.read_bytes()
    # NumPy's header, a score's sign, the block's key, the digest
    for place in (20, content.index(b"\n") + 4, len(content) - 40, len(content) - 1):
        flipped = bytearray(content)
        flipped[place] ^= 0x80
        block.write_bytes(flipped)
        caplog.clear()
        again, encoded = scored(loader, net, tmp_path)
        assert encoded == 2 and np.array_equal(again.scores_IT, whole.scores_IT)
        assert f"{block} is not as it was written; it is scored again" in caplog.text
        assert block.read_bytes() == content
    other = next(tmp_path.glob("block_*_00000.npy"))
    block.write_bytes(other.read_bytes())  # whole, but another's
    assert scored(loader, net, tmp_path)[1] == 2 and block.read_bytes() == content


def test_what_changes_scores_changes_what_kept_ones_are_used(own_vqa2_root, tmp_path, small_blocks):
    loader, net = built(own_vqa2_root)
    images = len({sample.image_ids for sample in loader.mixture})
    assert scored(loader, net, tmp_path)[1] == images
    assert scored(loader, net, tmp_path)[1] == 0
    picture = loader.mixture[int(np.flatnonzero(loader.mixture.images_M == 2)[0])].images[0]
    picture.write_bytes(loader.mixture[0].images[0].read_bytes())
    assert scored(loader, net, tmp_path)[1] == 2  # the block of the one that changed
    for change in ({"batch_size": 4}, {"settings": "another option"}, {"max_images": 4}):
        assert scored(loader, net, tmp_path, **change)[1] == change.get("max_images", images)
    scored(loader, net, tmp_path)
    loader.sizes_M2 = np.array(
        [[1, 9 - number] for number in loader.mixture.images_M]
    )  # training.bucket_by_size: another order
    bucketed, encoded = scored(loader, net, tmp_path)
    assert encoded == images
    loader.sizes_M2 = None
    np.testing.assert_allclose(bucketed.scores_IT, scored(loader, net)[0].scores_IT, atol=1e-5)


def test_two_evaluations_in_one_folder_keep_to_their_own_blocks(vqa2_root, tmp_path, small_blocks):
    """One is interrupted by another, of other weights, that runs from beginning to end in between."""
    loader, net = built(vqa2_root)
    other_loader, other = built(vqa2_root)
    with torch.no_grad():
        other.projection.bias.add_(1)
    # each as it is computed below: another number of threads rounds otherwise
    alone = scored(loader, net)[0].scores_IT, in_a_process_of_its_own(lambda: scored(other_loader, other)[0].scores_IT)
    found = []

    def interrupt(batch):
        if not found:
            del net.encode_images
            found.append(in_a_process_of_its_own(lambda: scored(other_loader, other, tmp_path)[0].scores_IT))
        return type(net).encode_images(net, batch)

    net.encode_images = interrupt
    first = scored(loader, net, tmp_path)[0].scores_IT
    assert np.array_equal(first, alone[0]) and np.array_equal(found[0], alone[1])
    assert len(list(tmp_path.glob("block_*"))) == 6  # three blocks of each
    again, encoded = scored(other_loader, other, tmp_path)
    assert encoded == 0 and np.array_equal(again.scores_IT, alone[1])
    assert len(list(tmp_path.glob("block_*"))) == 3  # nobody needs the first one's now


def in_a_process_of_its_own(compute):
    """Locks are between processes. What `compute` returns is an array."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: (torch.set_num_threads(1), sender.send(compute())))
    process.start()
    try:
        assert receiver.poll(60)
        return receiver.recv()
    finally:
        process.join(60)


def test_a_full_disk_costs_the_kept_blocks_and_not_the_evaluation(vqa2_root, tmp_path, small_blocks, caplog):
    loader, net = built(vqa2_root)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, former[1]))  # no file may grow larger
    try:
        matrix, _ = scored(loader, net, tmp_path / "scores")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert np.isfinite(matrix.scores_IT).all() and not list(tmp_path.glob("scores/block_*"))
    assert caplog.text.count("cannot be written (File too large)") == 1


def test_an_unreadable_image_is_left_out_with_its_texts(own_vqa2_root, tmp_path, small_blocks):
    loader, net = built(own_vqa2_root)
    whole, _ = scored(loader, net)
    bad = own_vqa2_root / "coco/val2014/COCO_val2014_000000000901.jpg"
    content = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(UserError, match=r"000000000901\.jpg.* set dataset_config.vqa2.on_bad_image=skip"):
        scored(loader, net)
    loader.mixture.on_bad_image["vqa2"] = "skip"
    samples = list(loader.mixture)
    row = next(row for row, first in enumerate(whole.first_sample_I) if samples[first].image_ids == (901,))
    columns = [column for column, sample in enumerate(whole.samples_T) if samples[sample].image_ids == (901,)]
    for blocks in (None, tmp_path, tmp_path):  # also from kept ones
        matrix, _ = scored(loader, net, blocks)
        expected = np.delete(np.delete(whole.scores_IT, row, axis=0), columns, axis=1)
        np.testing.assert_allclose(matrix.scores_IT, expected, atol=1e-5)
        assert len(columns) == 3 and matrix.num_skipped == 1
        found = [samples[matrix.first_sample_I[image]].image_ids for image in matrix.image_of_text_T]
        assert found == [samples[sample].image_ids for sample in matrix.samples_T] and (901,) not in found
    assert evaluate_matrix(task(), loader, matrix).metrics["num_skipped"] == 1
    with safe_open(save_matrix(matrix, loader, tmp_path / "written.safetensors"), "np") as file:
        assert 901 not in json.loads(file.metadata()["image_ids"])
        assert [text // 1000 for text in json.loads(file.metadata()["text_ids"])] == [image for (image,) in found]
    bad.write_bytes(content)
    restored, encoded = scored(loader, net, tmp_path)
    assert encoded == 2 and restored.num_skipped == 0  # its block was not kept
    np.testing.assert_allclose(restored.scores_IT, whole.scores_IT, atol=1e-5)


def test_a_split_without_one_readable_image_is_an_error(vqa2_root):
    loader, _ = built(vqa2_root)
    nothing = np.zeros(0, dtype=np.int64)
    matrix = ScoreMatrix(np.zeros((2, 2), np.float32), np.array([0, 3]), np.array([0, 3]), np.arange(2)).without([0, 1])
    assert np.array_equal(matrix.first_sample_I, nothing) and np.array_equal(matrix.image_of_text_T, nothing)
    with pytest.raises(UserError, match="the val split: every image was skipped as unreadable"):
        evaluate_matrix(task(), loader, matrix)


def test_how_much_of_a_split_is_scored(vqa2_root):
    loader, _ = built(vqa2_root)  # five images with three questions each
    assert num_scored(loader, None) == num_scored(loader, 9) == {"num_images": 5, "num_texts": 15}
    assert num_scored(loader, 2) == {"num_images": 2, "num_texts": 6, "num_images_in_split": 5}


def test_progress_counts_pairs_from_the_first_chunk_of_the_first_block(vqa2_root, small_blocks):
    loader, net = built(vqa2_root)

    class Told(NoProgress):
        def begin(self, total):
            self.total, self.steps = total, []

        def advance(self, steps):
            self.steps.append(steps)

    told = Told()
    scored(loader, net, progress=told)
    assert told.total == sum(told.steps) == 5 * 15
    assert told.steps[:2] == [2 * 8, 2 * 7]  # two images with fifteen texts, eight at a time


def test_folds_that_do_not_divide_are_left_out_and_said(caplog):
    scores = np.zeros((3, 3), dtype=np.float32)
    figures = task(fold_images=2).matrix_metrics(scores, np.arange(3))
    assert "image_to_text_r@1" in figures and not any(name.startswith("2_images") for name in figures)
    assert "task_config.retrieval.fold_images=2: 3 images do not divide into such folds" in caplog.text
    assert "2_images_image_to_text_r@1" in task(fold_images=2).matrix_metrics(
        scores[[0, 0, 1, 1]][:, [0, 0, 1, 1]], np.arange(4)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_not_finite_ends_with_its_own_status(value):
    with pytest.raises(NonFiniteLossError, match="a score is not finite"):
        task().matrix_metrics(np.full((2, 2), value, dtype=np.float32), np.arange(2))
