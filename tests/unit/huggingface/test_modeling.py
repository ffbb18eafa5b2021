"""transformers' classes give what the native model gives, bit for bit; so do their losses, and a training by Trainer."""

import copy
import functools
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from native_models import TEXTS, native
from torch.utils.data import IterableDataset

from pixelbert_plugin import registry
from pixelbert_plugin.data.loader import Loader
from pixelbert_plugin.data.loaders import Loaders
from pixelbert_plugin.data.run_data import RunData, build_builders
from pixelbert_plugin.distributed.parallel import Losses, wrap
from pixelbert_plugin.distributed.processes import ALONE
from pixelbert_plugin.huggingface import (
    PixelBertConfig,
    PixelBertForImageTextRetrieval,
    PixelBertForPreTraining,
    PixelBertForQuestionAnswering,
    PixelBertModel,
    from_native,
)
from pixelbert_plugin.training.step import Step


def images(count: int, seed: int = 0) -> list[np.ndarray]:
    """Of several sizes, so that batches have padding."""
    draw = np.random.default_rng(seed)
    sizes = [(48, 64), (64, 48), (60, 60)]
    return [draw.integers(0, 256, (*sizes[index % 3], 3), dtype=np.uint8) for index in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """By task, a native model, transformers' of it and its processor; read only."""
    options = {"retrieval": {"num_negatives": 3, "num_hardest": 2}}

    @functools.cache
    def make(task: str):
        loaded = native(task, tmp_path_factory.mktemp(task), **options.get(task, {}))
        return loaded, *from_native(loaded)

    return make


@torch.no_grad()
@pytest.mark.parametrize(
    "task, head",
    [
        ("vqa", "answers"),
        pytest.param("nlvr2", "pair", marks=pytest.mark.slow),
        pytest.param("retrieval", "itm", marks=pytest.mark.slow),
        pytest.param("pretrain", "itm", marks=pytest.mark.slow),
    ],
)
def test_every_class_gives_the_native_outputs_bit_for_bit(task, head, made):
    loaded, model, processor = made(task)
    per_text = 2 if task == "nlvr2" else 1
    pictures = images(3 * per_text)
    given = [pictures[at : at + per_text] for at in range(0, len(pictures), per_text)]
    expected = loaded.forward(list(zip(given, TEXTS, strict=False)))
    inputs = processor(images=given if per_text > 1 else pictures, text=TEXTS[:3], return_tensors="pt")
    output = model(**inputs)
    logits = output.itm_logits if task == "pretrain" else output.logits
    assert torch.equal(logits, expected.logits[head]) and output.loss is None
    assert torch.equal(model(**inputs, return_dict=False)[-1 if task == "pretrain" else 0], logits)
    base = PixelBertModel(model.config)
    base.pixelbert.load_state_dict(loaded.model.state_dict(), strict=False)
    hidden = base.eval()(**inputs, output_hidden_states=True, output_attentions=True)
    alone = loaded.model(loaded.batch(list(zip(given, TEXTS, strict=False))), return_attentions=True)
    words = expected.text.shape[1]
    assert torch.equal(hidden.last_hidden_state[:, words:], alone.pixels) and torch.equal(
        hidden.pooler_output, alone.text[:, 0]
    )
    assert torch.equal(hidden.attention_mask[:, words:], expected.pixel_mask)
    assert len(hidden.hidden_states) == 3 and torch.equal(hidden.hidden_states[-1], hidden.last_hidden_state)
    assert all(map(torch.equal, hidden.attentions, alone.attentions)) and len(hidden.attentions) == 2


@torch.no_grad()
def test_masked_words_are_guessed_as_the_native_model_does(made):
    loaded, model, processor = made("pretrain")
    picture, text = images(1)[0], "is the [MASK] [MASK]?"
    expected = loaded(picture, text).logits["mlm"]
    inputs = processor(images=picture, text=text, return_tensors="pt")
    everywhere = model(**inputs).prediction_logits
    at_masks = inputs["input_ids"] == processor.tokenizer.mask_token_id
    assert everywhere.shape == (1, inputs["input_ids"].shape[1], loaded.processors["text"].vocab_size) and at_masks.sum() == 2
    torch.testing.assert_close(everywhere[at_masks], expected)
    labels = torch.where(at_masks, 7, -100)
    output = model(**inputs, mlm_labels=labels, itm_labels=torch.tensor([1]))
    assert torch.equal(output.prediction_logits, expected)
    losses = F.cross_entropy(expected, torch.tensor([7, 7])) + F.cross_entropy(output.itm_logits, torch.tensor([1]))
    torch.testing.assert_close(output.loss, losses)


def test_answers_loss_is_that_of_the_official_rule_summed_over_answers(made):
    """transformers' ViLT has the mean over answers times their number, which is the same."""
    _, model, processor = made("vqa")
    inputs = processor(images=images(2), text=TEXTS[:2], return_tensors="pt")
    labels = torch.tensor([[1.0, 0, 0.3, 0, 0], [0, 0.9, 0, 0, 1]])
    output = model(**inputs, labels=labels)
    torch.testing.assert_close(output.loss, F.binary_cross_entropy_with_logits(output.logits, labels) * 5)
    output.loss.backward()
    assert not model.training and model.pixelbert.image_encoder.resnet.conv1.weight.grad.abs().sum() > 0


def test_one_image_with_several_texts_goes_through_the_cnn_once(made):
    _, model, processor = made("retrieval")
    inputs = processor(images=images(1)[0], text=TEXTS, return_tensors="pt")
    assert inputs["pixel_values"].shape[0] == 1 and inputs["image_index"].tolist() == [[0]] * 4
    output = model(**inputs, labels=torch.tensor([1, 0, 0, 0]))
    scores = model.scores(output.logits)
    torch.testing.assert_close(scores, output.logits[:, 1] - output.logits[:, 0])
    torch.testing.assert_close(output.loss, F.cross_entropy(scores[None], torch.tensor([0])))
    each = processor(images=images(1) * 4, text=TEXTS, return_tensors="pt")
    torch.testing.assert_close(model(**each).logits, output.logits)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": torch.tensor([0, 1, 0, 0])}, "labels: 1 at each image's own text, then 0 at its negatives"),
        ({"labels": torch.tensor([1, 0, 1, 0])}, "labels: 1 negatives to an image, fewer than task_options.num_hardest=2"),
        (
            {"image_index": None, "pixel_values": torch.zeros(3, 3, 64, 64)},
            "pixel_values: 3 images do not divide among 4 texts",
        ),
        ({"image_index": None, "pixel_values": torch.zeros(4, 2, 3, 64, 64)}, "pixel_values: 2 images to a text, where"),
        ({"pixel_values": None}, "pixel_values: is missing; PixelBertProcessor gives what the model takes"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line(change, message, made):
    _, model, processor = made("retrieval")
    inputs = {**processor(images=images(1)[0], text=TEXTS, return_tensors="pt"), **change}
    inputs["pixel_mask"] = inputs["pixel_mask"] if "pixel_values" not in change else None
    with pytest.raises(ValueError, match=message):
        model(**inputs)


def test_what_is_made_from_a_configuration_has_the_native_models_first_weights():
    config = PixelBertConfig(model_options={"image_encoder": {"type": "resnet18"}, **SMALL}, vocab_size=30)
    torch.manual_seed(1)
    model = PixelBertModel(config)
    torch.manual_seed(1)
    plain = registry.build("model", "pixelbert", config.native_model_options(), vocab_size=30, pad_token_id=0, heads={})
    state = model.pixelbert.state_dict()
    assert state.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in plain.state_dict().items())


SMALL = {
    "text_encoder": {
        "type": "bert",
        "params": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    }
}


def test_another_tasks_head_starts_anew_and_the_rest_is_taken(made, tmp_path):
    """A fine-tuning of a pre-trained folder: the head is drawn as the native model draws it."""
    _, model, _ = made("pretrain")
    model.save_pretrained(tmp_path / "pretrained")
    tuned = PixelBertForQuestionAnswering.from_pretrained(tmp_path / "pretrained", num_labels=400)
    assert tuned.config.num_labels == 400 and tuned.pixelbert.heads.keys() == {"answers"}
    mine, theirs = tuned.state_dict(), model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine if ".heads." not in name)
    first, _, norm, last = tuned.pixelbert.heads["answers"].layers
    assert float(last.weight.detach().std()) == pytest.approx(0.2, rel=0.1) and not last.bias.any() and not first.bias.any()
    assert bool((norm.weight == 1).all()) and not norm.bias.any()
    back = PixelBertForImageTextRetrieval.from_pretrained(tmp_path / "pretrained")
    assert torch.equal(back.pixelbert.heads["itm"].classifier.weight, model.pixelbert.heads["itm"].classifier.weight)


@pytest.mark.slow
def test_pixels_are_sampled_in_training_by_the_seeds_given(tmp_path):
    loaded = native("vqa", tmp_path, model={"num_sampled_pixels": 2})
    model, processor = from_native(loaded)
    inputs = processor(images=images(2), text=TEXTS[:2], return_tensors="pt")
    model.pixelbert.text_encoder.eval()
    model.pixelbert.training = True  # sampling alone, without dropout
    model.training = True
    seeds = torch.tensor([4, 9])
    batch = replace(loaded.batch(list(zip(images(2), TEXTS, strict=False))), image_seeds=seeds)
    expected = model.pixelbert(batch).logits["answers"]
    assert torch.equal(model(**inputs, image_seeds=seeds).logits, expected)
    assert not torch.equal(model(**inputs, image_seeds=seeds + 1).logits, expected)
    drawn = [model(**inputs).logits for _ in range(4)]
    assert not all(torch.equal(each, drawn[0]) for each in drawn)


class Inputs(IterableDataset):
    """Batches as they are."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="pip install 'pixelbert_plugin[hub]': accelerate")
def test_trainer_has_the_losses_of_the_native_training_step(tmp_path, vqa2_root, monkeypatch):
    """20 updates of AdamW over the same batches from the same weights, without dropout."""
    from transformers import Trainer, TrainingArguments, trainer

    monkeypatch.setattr(trainer, "is_datasets_available", lambda: False)  # the repository's own datasets/ is no such package
    text = copy.deepcopy(native_text_options())
    loaded = native("vqa", tmp_path, model={"text_encoder": text})
    loaded.config.env.data_dir, loaded.config.run_type = str(vqa2_root), "train"
    data = RunData.of(build_builders(loaded.config.datasets, loaded.config.dataset_config, loaded.config.env), ["train"])
    options = replace(loaded.config.training, num_workers=0)
    loader: Loader = Loaders(options, None, loaded.task, loaded.processors, loaded.device).of(data.splits["train"])
    updates = loader.updates(0, 8, None, 2)
    # the last layer is computed whole, as transformers' classes have it: for [CLS] alone it would be the same up to rounding,
    # which AdamW makes much of within some updates
    given = [[replace(loader.ready(batch), read_positions=None) for batch in next(updates)[0]] for _ in range(20)]
    model, _ = from_native(loaded)
    steps = [
        {
            "input_ids": batch.input_ids,
            "attention_mask": batch.text_mask.long(),
            "pixel_values": batch.images,
            "pixel_mask": mask_of(batch),
            "image_index": batch.image_index,
            "labels": batch.targets["answers"],
        }
        for (batch,) in given
    ]
    rates = {"lr": 1e-3, "weight_decay": 0.01, "betas": (0.9, 0.999), "eps": 1e-8}
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "trainer"),
        max_steps=20,
        per_device_train_batch_size=1,
        logging_steps=1,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
    )
    optimizer = torch.optim.AdamW(model.parameters(), **rates)
    collate = lambda rows: rows[0]  # noqa: E731
    run = Trainer(model=model, args=arguments, train_dataset=Inputs(steps), data_collator=collate, optimizers=(optimizer, None))
    run.train()
    theirs = [entry["loss"] for entry in run.state.log_history if "loss" in entry]

    native_model, numbers = loaded.model.train(), loaded.precision
    optimizers = {"all": torch.optim.AdamW(native_model.parameters(), **rates)}
    numbers.prepare(native_model, optimizers)
    step = Step(
        parallel=wrap("ddp", Losses(native_model, loaded.task, numbers), ALONE),
        task=loaded.task,
        optimizers=optimizers,
        schedule=lambda update, epoch: 1.0,
        precision=numbers,
        processes=ALONE,
        seed=1,
    )
    ours = [float(sum(step(batches, update + 1, 0.0)[0].values())) for update, batches in enumerate(given)]
    assert len(theirs) == 20 and theirs == pytest.approx(ours, rel=1e-6)
    assert ours[-1] < 0.8 * ours[0]
    for name, value in native_model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[f"pixelbert.{name}"].to(value.dtype), value, rtol=1e-5, atol=1e-6)


def native_text_options() -> dict:
    from conftest import TINY

    text = copy.deepcopy(TINY["model_config"]["pixelbert"]["text_encoder"])
    text["params"] |= {"dropout": 0.0, "attention_dropout": 0.0}
    return text


def mask_of(batch) -> torch.Tensor:
    mask = torch.zeros(batch.images[:, 0].shape, dtype=torch.int64)
    for row, (height, width) in zip(mask, batch.image_sizes.tolist(), strict=True):
        row[:height, :width] = 1
    return mask


@pytest.mark.slow
def test_pretraining_heads_are_those_of_the_options():
    config = PixelBertConfig(
        model_options={"image_encoder": {"type": "resnet18"}, **SMALL},
        vocab_size=30,
        task="pretrain",
        task_options={"itm": False},
    )
    model = PixelBertForPreTraining(config).eval()
    assert model.pixelbert.heads.keys() == {"mlm"}
    output = model(input_ids=torch.ones(1, 3, dtype=torch.int64), pixel_values=torch.zeros(1, 3, 64, 64))
    assert output.itm_logits is None and output.prediction_logits.shape == (1, 3, 30)
