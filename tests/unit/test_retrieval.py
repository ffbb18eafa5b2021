"""Retrieval: the loss and its gradient by hand, and every score against a forward of that pair alone."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from test_order_and_loader import make_loader
from test_pixelbert import model

from pixelbert_plugin import registry
from pixelbert_plugin.engine.precision import Fp32
from pixelbert_plugin.engine.scoring import evaluate_matrix, save_matrix, score_all_pairs
from pixelbert_plugin.errors import NonFiniteLossError, UserError

FP32 = Fp32(torch.device("cpu"))


def task(**options):
    return registry.build("task", "retrieval", options, "task_config.retrieval", processors={})


class Rows:
    """A micro-batch of `count` images, as far as the loss looks at it."""

    def __init__(self, weights):
        self.weights = torch.tensor(weights)

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
    with pytest.raises(UserError, match=r"task_config.retrieval.num_hardest: 5 is refused: must be at most num_negatives"):
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
    encode = loader.reader.text
    loader.reader.text = Cutting(encode)
    matrix = score_all_pairs(net, task(), loader, 4, FP32)
    assert seen == {"images": matrix.scores_IT.shape[0], "texts": matrix.scores_IT.shape[1]}
    assert loader.truncated_texts == seen["texts"]  # each text once, though the first of an image is read with it again


class Cutting:
    """A text processor all of whose texts are cut."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, text):
        return self.inner(text)[0], True


def test_blocks_outlive_a_kill_and_belong_to_their_weights(vqa2_root, tmp_path, monkeypatch):
    monkeypatch.setattr("pixelbert_plugin.engine.scoring.IMAGES_PER_BLOCK", 2)
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
    torn = folder / "block_00001.npy"
    torn.write_bytes(b"\x93NUMPY torn")
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


def test_an_unreadable_image_ends_the_scoring_by_name(own_vqa2_root):
    bad = own_vqa2_root / "coco/val2014/COCO_val2014_000000000901.jpg"
    bad.write_bytes(b"")
    loader, net = built(own_vqa2_root)
    loader.mixture.on_bad_image["vqa2"] = "skip"
    with pytest.raises(UserError, match=r"000000000901\.jpg.* none can be skipped: restore the file"):
        score_all_pairs(net, task(), loader, 8, FP32)


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
