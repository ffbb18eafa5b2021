"""What the loop owes to the paper's recipe: rates update by update, dropout, the best checkpoint, ties and initial weights."""

import math
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pixelbert_plugin import registry
from pixelbert_plugin.config.options import EarlyStopConfig
from pixelbert_plugin.distributed.processes import ALONE
from pixelbert_plugin.errors import NonFiniteLossError
from pixelbert_plugin.evaluation.evaluator import SplitEvaluation
from pixelbert_plugin.precision.loss_scale import LossScale, check_scale
from pixelbert_plugin.types import PixelFeatures
from unit.models.test_pixelbert import SMALL, batch, model
from unit.tasks.test_pretrain import prepared
from unit.tasks.test_pretrain import task as pretraining
from unit.training.test_step import Linear, rows, trainer


class Data:
    """Eight rows an epoch, in updates of `batch_size`."""

    def __init__(self):
        self.skipped_images = {}

    def __len__(self):
        return 8

    def one_ahead(self, batches):
        return iter(batches)

    def updates(self, position, batch_size, micro_batch_size, texts_per_image):
        at = position % 8
        while True:
            stop = min(at + batch_size, 8)
            yield [rows(at, stop)], stop - at
            at = stop % 8


class Silent:
    """Events that tell nobody."""

    def bar(self, *_):
        return nullcontext()

    def __getattr__(self, name):
        return lambda *_, **__: None


def looping(scores=(), schedule=lambda update, epoch: 1.0, **options):
    """A trainer over `Data` with the validation scores given one after the other; it notes what it saved."""
    built = trainer(Linear(), schedule=schedule, **options)
    built.loader, built.events, built._log = Data(), Silent(), lambda *_: None
    built.monitor, built.saved, left = "val/set/score", [], iter(scores)
    built.evaluate = lambda: {"val/set": SplitEvaluation({"score": next(left, 0.0)})}
    built.save = lambda state: built.saved.append(state.update)
    built.record = lambda state: None
    built.settled = []
    built.settle = lambda: built.settled.append(built.saved[-1])
    return built


def test_what_is_evaluated_lies_on_the_disk_before():
    """Checkpoints after 2, 4 and 6 that nothing evaluates are only copied."""
    built, seen = looping((0.1, 0.2), max_updates=6, checkpoint_interval=2, evaluation_interval=3), []
    evaluate = built.evaluate
    built.evaluate = lambda: seen.append((built.state.update, built.settled[-1])) or evaluate()
    built.train()
    assert built.saved == [2, 3, 4, 6] and built.settled == [3, 6]
    assert seen == [(3, 3), (6, 6)]


def test_rates_of_every_update_around_a_milestone():
    """Updates of 3, 3 and 2 of 8 samples: the fourth is the first of epoch 1, and the seventh of epoch 2."""
    schedule = registry.build("scheduler", "step", {"milestones": [1, 2]}, "s")
    asked, rates = [], []
    built = looping(
        schedule=lambda update, epoch: asked.append((update, epoch)) or schedule(update, epoch), max_epochs=3, batch_size=3
    )
    step = built.step.precision.step

    def noted(optimizers, *arguments):
        rates.append([group["lr"] for optimizer in optimizers for group in optimizer.param_groups])
        return step(optimizers, *arguments)

    built.step.precision.step = noted
    built.train()
    assert asked == [(number + 1, start / 8) for number, start in enumerate((0, 3, 6, 8, 11, 14, 16, 19, 22))]
    factors = [1.0] * 3 + [0.1] * 3 + [0.01] * 3
    assert rates == [pytest.approx([0.1 * f, 0.1 * f, 0.01 * f, 0.01 * f]) for f in factors]


def test_warm_up_and_milestones_in_updates_by_hand():
    schedule = registry.build(
        "scheduler", "step", {"milestones": [3, 5], "unit": "updates", "warmup_updates": 4, "gamma": 0.5}, "s"
    )
    # update 4 is the first after three are done
    assert [schedule(update, 0.0) for update in range(1, 8)] == [0.25, 0.5, 0.75, 0.5, 0.5, 0.25, 0.25]
    assert registry.build("scheduler", "step", {}, "s")(1, 0.0) == 1.0  # no warm-up unless asked for
    by_epochs = registry.build("scheduler", "step", {"milestones": [2]}, "s")
    assert [by_epochs(1, epoch) for epoch in (1.999, 2.0, 2.001)] == [1.0, 0.1, 0.1]


class Dropping(Linear):
    """Half of the hidden values are dropped; notes which."""

    def __init__(self):
        super().__init__()
        self.masks = []

    def forward(self, batch):
        mask = nn.functional.dropout(torch.ones(len(batch), 64), 0.5, self.training)
        self.masks.append(mask.bool().flatten().tolist())
        return super().forward(batch) * mask.mean(1)


def masks_of(rank=0, seed=1):
    """By update and micro-batch, what was dropped. Each micro-batch holds the same rows."""
    built = trainer(Dropping(), seed=seed)
    built.step.processes = replace(ALONE, rank=rank)
    built.model.train()
    torch.manual_seed(123)
    for update in (1, 2):
        built.step([rows(0, 4), rows(0, 4)], update, 0.0)
    return built.model.masks


def test_dropout_differs_in_every_update_micro_batch_process_and_seed_and_a_replay_is_equal():
    found = [*masks_of(), *masks_of(rank=1), *masks_of(seed=2)]
    assert len(found) == 12 and len({tuple(mask) for mask in found}) == 12
    assert masks_of() == found[:4]  # whatever was drawn before


def best_of(scores, **early_stop):
    built = looping(
        scores, max_updates=len(scores), evaluation_interval=1, batch_size=8, early_stop=EarlyStopConfig(**early_stop)
    )
    state = built.train()
    return state.update, state.best, state.best_update, state.evaluations_since_best


@pytest.mark.parametrize(
    ("scores", "options", "expected"),
    [
        ([0.3, 0.5, 0.4], {}, (3, 0.5, 2, 1)),  # updates, best, its update, evaluations since
        ([0.5, 0.5, 0.5], {}, (3, 0.5, 1, 2)),  # the first of equals
        ([0.3, 0.5, 0.2], {"minimize": True}, (3, 0.2, 3, 0)),
        ([0.3, 0.3, 0.4], {"minimize": True}, (3, 0.3, 1, 2)),
        ([-1.0, -2.0, -3.0], {}, (3, -1.0, 1, 2)),
        ([0.5, 0.4, 0.4, 0.9], {"enabled": True, "patience": 2}, (3, 0.5, 1, 2)),
        ([0.5, 0.4, 0.6, 0.4, 0.4, 0.4], {"enabled": True, "patience": 2}, (5, 0.6, 3, 2)),
        ([0.5, 0.4, 0.4, 0.9], {"enabled": False, "patience": 2}, (4, 0.9, 4, 0)),
        ([5.0, 4.0, 4.5, 4.2, 1.0], {"enabled": True, "patience": 2, "minimize": True}, (4, 4.0, 2, 2)),
    ],
)
def test_the_best_is_the_highest_unless_minimized_and_patience_counts_evaluations(scores, options, expected):
    assert best_of(scores, **options) == expected


def test_evaluations_and_checkpoints_come_at_their_intervals_and_at_the_end():
    evaluated = []
    built = looping(max_updates=7, batch_size=8, evaluation_interval=3, checkpoint_interval=2)
    built.evaluate = lambda: evaluated.append(built.state.update) or {"val/set": SplitEvaluation({"score": 0.0})}
    built.train()
    assert evaluated == [3, 6, 7]
    assert {2, 4, 6, 7} <= set(built.saved)


def test_a_batch_counts_pairs_of_which_a_sample_may_be_several():
    """Pre-training's sample is a true and a false pair: a batch of 6 pairs is 3 samples, micro-batches of 4 are 2."""
    asked = []
    built = looping(max_epochs=1, batch_size=6, micro_batch_size=4, texts_per_image=5)
    built.step.task.pairs_per_sample, updates = 2, built.loader.updates
    built.loader.updates = lambda *arguments: asked.append(arguments) or updates(*arguments)
    state = built.train()
    assert asked == [(0, 3, 2, 5)] and state.update == 3 and state.samples == 8


@pytest.mark.parametrize("sizes", [(8,), (4, 4), (1, 7), (3, 3, 2), (1,) * 8])
def test_an_update_is_the_mean_over_its_pairs_however_they_fall_into_micro_batches(sizes):
    whole, parts = Linear(), Linear()
    _, norm = trainer(whole).step([rows(0, 8)], 1, 0.0)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    micro_batches = [rows(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    _, norm_parts = trainer(parts).step(micro_batches, 1, 0.0)
    assert float(norm) == pytest.approx(float(norm_parts), rel=1e-5)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_of_several_processes_are_summed_not_averaged():
    """Each of W processes hands over its share times W, of which the mean is taken; here the shares are alike."""
    alone, shared = Linear(), Linear()
    one, other = trainer(alone), trainer(shared)
    one.step([rows(0, 8)], 1, 0.0)
    # W processes with the same rows: their total is W times this process's, and so is what is handed over
    other.step.processes = SimpleNamespace(rank=0, world_size=4, sum=lambda values: 4 * values)
    losses, _ = other.step([rows(0, 8)], 1, 0.0)
    for a, b in zip(alone.parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert set(losses) == {"all", "some"}


def test_nothing_to_count_is_a_loss_of_zero():
    """An update none of whose texts had a word masked."""
    built = trainer(Linear())
    data = rows(0, 8)
    data.some = torch.zeros(8, dtype=torch.bool)
    losses, norm = built.step([data], 1, 0.0)
    assert float(losses["some"]) == 0 and math.isfinite(float(norm))


def test_gradients_are_clipped_to_the_norm_and_never_stretched():
    for limit, is_clipped in ((1e-3, True), (1e3, False)):
        clipped, free = Linear(), Linear()
        for net, bound in ((clipped, limit), (free, None)):
            built = trainer(net, max_norm=bound)
            for name in ("cnn", "rest"):  # plain steps, whose length is the gradient's
                named = net.parameter_groups()[name]
                built.step.optimizers[name] = torch.optim.SGD([parameter for _, parameter in named], lr=1.0)
            before = torch.cat([p.detach().flatten().clone() for p in net.parameters()])
            _, norm = built.step([rows(0, 8)], 1, 0.0)
            step = float((torch.cat([p.detach().flatten() for p in net.parameters()]) - before).norm())
            assert step == pytest.approx(min(float(norm), bound or math.inf), rel=1e-3)
        assert (float(norm) > limit) == is_clipped  # reported as it was before


def without_cnn(**options):
    """Pixel-BERT of three images, whose CNN says the same of them always."""
    net = model(**options)
    pixels = torch.rand(3, 40, 512, generator=torch.Generator().manual_seed(4))
    features = PixelFeatures(pixels=pixels, mask=torch.ones(3, 40, dtype=torch.bool), grid=(5, 8))
    net.image_encoder.forward = lambda *_: features
    return net


def test_masked_words_teach_the_embeddings_that_predict_them():
    """Tied: words that no text holds learn through the head alone."""
    net = without_cnn(heads={"mlm": 50, "itm": 2})
    data = batch([torch.zeros(3, 2, 2)] * 3, epoch_targets={"mlm_positions": torch.tensor([2, 17])})
    words = net.text_encoder.bert.embeddings.word_embeddings.weight
    net(data).logits["mlm"].square().sum().backward()
    absent = sorted(set(range(1, 50)) - set(data.input_ids.flatten().tolist()))
    assert absent and (words.grad[absent].abs().sum(1) > 0).all()
    # and what the embeddings become, the head predicts with
    with torch.no_grad():
        before = net(data).logits["mlm"]
        words[absent[0]] += 1
        after = net(data).logits["mlm"]
    assert not torch.equal(before[:, absent[0]], after[:, absent[0]]) and torch.equal(before[:, absent[1]], after[:, absent[1]])
    assert not any(p.shape == words.shape for name, p in net.named_parameters() if name.startswith("heads."))


def test_weights_that_no_checkpoint_gives_start_as_berts():
    std = 0.06
    net = model(heads={"answers": 400, "itm": 2, "pair": 2, "mlm": 50})
    linear = {name: m for name, m in net.named_modules() if isinstance(m, nn.Linear) and not name.startswith("image_encoder")}
    assert {"projection", "heads.answers.layers.0", "heads.itm.classifier"} <= linear.keys()
    for name, module in linear.items():
        size = module.weight.numel()
        assert float(module.weight.detach().std()) == pytest.approx(std, rel=6 / math.sqrt(2 * size)), name
        assert abs(float(module.weight.detach().mean())) < 6 * std / math.sqrt(size), name
        assert not module.bias.any(), name
    s_v = net.pixel_embedding
    assert s_v.requires_grad and float(s_v.detach().std()) == pytest.approx(std, rel=6 / math.sqrt(2 * s_v.numel()))


@torch.no_grad()
def test_dropout_acts_in_training_alone():
    def net(dropout, attention, pixels):
        return without_cnn(text={**SMALL, "dropout": dropout, "attention_dropout": attention}, pixel_dropout=pixels)

    data = batch([torch.zeros(3, 2, 2)] * 3)
    for chances in ((0.3, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, 0.0, 0.3)):
        built = net(*chances)
        assert torch.equal(built(data).text, built(data).text)
        built.train()
        drawn = []
        for seed in (1, 2, 1):
            torch.manual_seed(seed)
            drawn.append(built(data).text)
        assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1]), chances
    still = net(0.0, 0.0, 0.0).train()
    assert torch.equal(still(data).text, still(data).text)
    # the share of pixels' values that is dropped
    built = net(0.0, 0.0, 0.3).train()
    values = built.encode_images(data).pixels
    assert float((values == 0).float().mean()) == pytest.approx(0.3, abs=6 * math.sqrt(0.21 / values.numel()))


def test_a_word_or_pixel_of_padding_changes_nothing():
    net = without_cnn()
    data = batch([torch.zeros(3, 2, 2)] * 3, lengths=(4, 9, 9))
    with torch.no_grad():
        before = net(data).logits["answers"]
        data.input_ids[0, 4:] = 7
        assert torch.equal(net(data).logits["answers"], before)


@torch.no_grad()
def test_positions_of_pixels_are_those_of_their_row_and_their_column():
    plain, placed = without_cnn(), without_cnn(position_embedding="2d", max_grid_size=9)
    placed.load_state_dict(plain.state_dict(), strict=False)
    data = batch([torch.zeros(3, 2, 2)] * 3)
    added = (placed.encode_images(data).pixels - plain.encode_images(data).pixels).view(3, 5, 8, -1)
    for row in range(5):
        for column in range(8):
            expected = placed.row_embedding[row] + placed.column_embedding[column]
            torch.testing.assert_close(added[1, row, column], expected, atol=1e-5, rtol=0)


def test_the_loss_scale_starts_and_grows_as_torchs():
    theirs = torch.amp.GradScaler("cpu")
    ours = LossScale()
    assert (ours.value, ours.growth_interval) == (theirs.get_scale(), theirs.get_growth_interval()) == (65536.0, 2000)
    check_scale(1.01e-4)
    with pytest.raises(NonFiniteLossError):
        check_scale(0.99e-4)


def test_a_true_and_a_false_text_are_masked_by_draws_of_their_own():
    """Else the masks of a sample's two texts would tell that they belong together."""
    pretrain = pretraining(mask_probability=0.5)
    alike = 0
    for seed in range(40):
        masked = prepared(pretrain, (seed, seed + 100), pairs=((0, 0), (2, 2)))[0].input_ids
        alike += int(torch.equal(masked[0], masked[1]))
        assert not torch.equal(masked, prepared(pretrain, (seed + 500, seed + 700), pairs=((0, 0), (2, 2)))[0].input_ids)
    assert alike < 5  # of six words each


def test_five_hardest_of_twenty_by_hand():
    """Their gradient is their softmax share; the fifteen others' is none; the true caption's is its share less one."""
    torch.manual_seed(3)
    scores = torch.randn(4, 21, dtype=torch.float64)
    logits = torch.stack([torch.randn(84, dtype=torch.float64), torch.zeros(84, dtype=torch.float64)], 1)
    logits[:, 1] = logits[:, 0] + scores.flatten()
    logits = logits.float().requires_grad_()
    weights = torch.tensor([1.0, 1.0, 0.0, 1.0])
    images = type("Rows", (), {"weights": weights, "targets": {}, "__len__": lambda self: 4})()
    task = registry.build("task", "retrieval", {}, "t", processors={})
    loss = task.loss(SimpleNamespace(logits={"itm": logits}), images)["retrieval"]
    shares = scores.exp() / scores.exp().sum(1, keepdim=True)
    assert loss.item() == pytest.approx(float(-(shares[:, 0].log() * weights).sum()), rel=1e-4)
    loss.backward()
    expected = torch.zeros(4, 21, dtype=torch.float64)
    for row in range(4):
        order = sorted(range(1, 21), key=lambda column, row=row: -float(scores[row, column]))
        for column in order[:5]:
            expected[row, column] = shares[row, column] * weights[row]
        expected[row, 0] = (shares[row, 0] - 1) * weights[row]
    torch.testing.assert_close(logits.grad[:, 1].view(4, 21).double(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits.grad[:, 0], -logits.grad[:, 1])
    assert float(task.counts(images)["retrieval"]) == 3
