"""Pre-training's targets, losses and figures, worked out by hand."""

import math

import pytest
import torch

from pixelbert_plugin import registry
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.types import Batch, ModelOutput, Sample

TEXTS = ["a red disc on a table", "two blue cups", "one green box by a red cup"]


def task(**options):
    text = registry.build("processor", "bert_tokenizer", {}, "t")
    text.fit(TEXTS * 2)
    return registry.build("task", "pretrain", options, "task_config.pretrain", processors={"text": text})


def prepared(pretrain, seeds=(11, 12), pairs=((0, 1), (2, 1))):
    """Two samples of two images, each with its own text and another's."""
    rows = [pretrain.text(TEXTS[index])[0] for pair in pairs for index in pair[: pretrain.pairs_per_sample]]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    samples = [Sample(sample_id=n, image_ids=(n,), images=("x",), text=TEXTS[pair[0]]) for n, pair in enumerate(pairs)]
    batch = Batch(
        sample_ids=[0, 1],
        input_ids=ids.clone(),
        text_mask=torch.tensor([[True] * len(row) + [False] * (longest - len(row)) for row in rows]),
        images=[],
        image_index=torch.arange(2).repeat_interleave(pretrain.pairs_per_sample)[:, None],
        image_seeds=torch.zeros(2),
        weights=torch.tensor([1.0, 0.0]),
        samples=samples,
    )
    pretrain.prepare(batch, list(seeds))
    return batch, ids


def output(**logits):
    empty = torch.zeros(1)
    return ModelOutput(logits=logits, text=empty, pixels=empty, pixel_mask=empty, pixel_positions=empty, grid=(1, 1))


def test_words_are_masked_in_both_texts_but_learned_on_true_pairs_only():
    pretrain = task(mask_probability=0.6)
    masked_false = 0
    for seed in range(20):
        batch, ids = prepared(pretrain, (seed, seed + 100))
        positions = batch.targets["mlm_positions"]
        rows = positions // ids.shape[1]
        assert set(rows.tolist()) <= {0, 2}
        assert batch.targets["mlm"].tolist() == ids.flatten()[positions].tolist()
        assert batch.targets["mlm_samples"].tolist() == (rows // 2).tolist()
        changed = (batch.input_ids != ids).flatten().nonzero().flatten()
        true_rows = torch.tensor([0, 2])
        assert set(changed[torch.isin(changed // ids.shape[1], true_rows)].tolist()) <= set(positions.tolist())
        masked_false += int((batch.input_ids[1::2] == pretrain.text.mask_token_id).sum())
        assert not (batch.input_ids[:, 0] != ids[:, 0]).any() and ((batch.input_ids == 0) == (ids == 0)).all()
    assert masked_false > 20
    again, _ = prepared(pretrain, (3, 103))
    assert torch.equal(again.input_ids, prepared(pretrain, (3, 103))[0].input_ids)


def test_losses_are_sums_over_what_counts():
    pretrain = task(mask_probability=0.6)
    batch, _ = prepared(pretrain)
    words, vocab = len(batch.targets["mlm"]), pretrain.text.vocab_size
    of_first = int((batch.targets["mlm_samples"] == 0).sum())
    assert 0 < of_first < words  # both samples have masked words, and the second weighs nothing
    itm = torch.tensor([[0.0, 1.0], [2.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    losses = pretrain.loss(output(mlm=torch.zeros(words, vocab), itm=itm), batch)
    assert float(losses["mlm"]) == pytest.approx(of_first * math.log(vocab), rel=1e-5)
    assert float(losses["itm"]) == pytest.approx(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-2)), rel=1e-5)
    counts = pretrain.counts(batch)
    assert float(counts["mlm"]) == of_first and float(counts["itm"]) == 2
    batch.weights = torch.ones(2)
    assert float(pretrain.counts(batch)["mlm"]) == words and float(pretrain.counts(batch)["itm"]) == 4


def test_figures_are_over_all_words_and_all_pairs():
    pretrain = task(mask_probability=0.6)
    batch, _ = prepared(pretrain)
    words = len(batch.targets["mlm"])
    mlm = torch.nn.functional.one_hot(batch.targets["mlm"], pretrain.text.vocab_size).float()
    mlm[0] = mlm[0].roll(1)  # one word wrong
    itm = torch.tensor([[0.0, 1.0], [2.0, 0.0], [9.0, 0.0], [9.0, 0.0]])  # the second sample's own text is refused
    results = pretrain.predict(output(mlm=mlm, itm=itm), batch)
    assert pretrain.metrics(results) == {"mlm_accuracy": pytest.approx((words - 1) / words), "itm_accuracy": 0.75}
    assert results[1].truth == results[1].prediction and results[0].truth != results[0].prediction
    suffix, text = pretrain.predictions(results)
    assert suffix == ".tsv" and text.splitlines()[2].startswith(f"1\t{results[1].truth}\t{results[1].prediction}\t")


def test_parts_can_be_left_out_but_not_all():
    assert task(itm=False).pairs_per_sample == 1 and task(itm=False).num_negatives == 0
    assert task(itm=False).heads().keys() == {"mlm"} and task(mlm=False).heads() == {"itm": 2}
    assert task(mlm=False).main_metric == "itm_accuracy" and task().pairs_per_sample == 2
    with pytest.raises(UserError, match=r"task_config.pretrain.itm: False is invalid: false, and mlm too"):
        task(itm=False, mlm=False)
