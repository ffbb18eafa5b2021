"""Contracts: what a component lacks is told in one line, all of it, when it is registered or built."""

from dataclasses import dataclass
from types import SimpleNamespace

import catalogue
import pytest
import torch
from conftest import ROOT, TINY, write_config
from torch import nn

from pixelbert_plugin import interfaces, registry
from pixelbert_plugin.build import build_model
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.data.builders.base import Builder
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.optim.optimizer_state import rule
from pixelbert_plugin.registry import contracts
from pixelbert_plugin.registry.schema import Component
from pixelbert_plugin.tasks.base import Task
from pixelbert_plugin.types import PixelFeatures


@pytest.fixture(autouse=True)
def names_are_free_again():
    before = dict(catalogue.REGISTRY)
    yield
    catalogue.REGISTRY.clear()
    catalogue.REGISTRY.update(before)


def refused(kind: str, component) -> str:
    """What is said where the component is registered."""
    with pytest.raises(UserError) as error:
        getattr(registry, f"register_{kind}")("mine")(component)
    message = str(error.value)
    assert "\n" not in message and message.startswith(f"{kind} 'mine' (") and "mine" not in registry.names(kind)
    assert message.endswith(f". docs/extending.md lists what every {kind} must have")
    return message


def not_built(kind: str, component, **context) -> str:
    """What is said where the component, which can be registered, is built."""
    getattr(registry, f"register_{kind}")("mine")(component)
    with pytest.raises(UserError) as error:
        registry.build(kind, "mine", None, f"{kind}.mine", **context)
    assert "\n" not in str(error.value)
    return str(error.value)


class Whole:
    """A task with all that it needs, and no more."""

    main_metric = "accuracy"

    def __init__(self, processors):
        pass

    def heads(self):
        return {"mine": 2}

    def prepare(self, batch, seeds):
        pass

    def loss(self, output, batch):
        return {}

    def counts(self, batch):
        return {}

    def predict(self, output, batch):
        return []

    def metrics(self, results):
        return {}


def test_a_task_without_loss_and_more_is_told_all_of_it_and_its_line():
    class Mine:
        main_metric = "accuracy"

        def __init__(self, processors):
            pass

        def heads(self):
            return {}

        def prepare(self, batch):
            pass

        def metrics(self, results):
            return {}

    line = Mine.__init__.__code__.co_firstlineno - 3
    message = refused("task", Mine)
    assert f"test_interfaces.py:{line})" in message
    assert "it lacks loss(output, batch), counts(batch), predict(output, batch); " in message
    assert "prepare is called with (batch, seeds), but takes (batch)." in message


def test_a_task_that_derives_from_the_contract_is_told_too():
    class Mine(Task):
        main_metric = "accuracy"

    assert "it lacks heads(), prepare(batch, seeds), loss(output, batch), counts(batch), predict(" in refused("task", Mine)


def test_a_task_of_all_pairs_needs_a_matrix_and_no_predictions():
    class Mine(Whole):
        scores_all_pairs = True

    assert "it lacks scores(logits), matrix_metrics(scores_IT, image_of_text_T)." in refused("task", Mine)


def test_a_task_gets_what_it_leaves_out():
    registry.register_task("mine")(type("Mine", (Whole,), {"num_negatives": 3}))
    task = registry.build("task", "mine", None, "t", processors={})
    assert (task.num_negatives, task.pairs_per_sample, task.processors) == (3, 1, ("text", "image"))
    assert (task.images_per_sample, task.needs_answers, task.scores_all_pairs) == (None, False, False)
    assert not task.reads_logits_only
    assert task.fit is None and task.predictions is None and task.asked() == {}


def test_a_task_without_main_metric_is_told_when_it_is_built():
    Nameless = type("Nameless", (), {name: value for name, value in vars(Whole).items() if callable(value)})
    assert "it lacks main_metric. docs" in not_built("task", Nameless, processors={})


def test_an_encoder_without_out_channels_or_hidden_size():
    class Image(nn.Module):
        def forward(self, images, sizes):
            return PixelFeatures(pixels=images, mask=images, grid=(1, 1))

    class Text(nn.Module):
        def __init__(self, vocab_size, pad_token_id):
            super().__init__()
            self.word_embeddings = nn.Parameter(torch.zeros(vocab_size, 2))

        def embed(self, input_ids):
            return self.word_embeddings[input_ids]

        def forward(self, hidden, mask, return_attentions=False):
            return hidden, None

    assert "it lacks out_channels. docs" in not_built("encoder", Image)
    catalogue.REGISTRY.pop(("pixelbert_plugin", "encoders", "mine"))
    message = not_built("encoder", Text, vocab_size=3, pad_token_id=0)
    assert message.startswith("encoder 'mine' (") and "it lacks hidden_size. docs" in message  # a parameter is there
    Text.hidden_size = 2
    encoder = registry.build("encoder", "mine", None, "e", vocab_size=3, pad_token_id=0)
    assert (encoder.initializer_range, encoder.pretrained_heads(), encoder.shard_units()) == (0.02, {}, [])
    hidden, positions = torch.arange(12.0).view(2, 3, 2), torch.tensor([[0, 2], [0, 0]])
    assert encoder.read(hidden, None, positions).tolist() == [[[0, 1], [4, 5]], [[6, 7], [6, 7]]]  # its forward gives all


def test_an_encoder_without_forward_and_a_model_that_no_optimizer_could_train():
    class Mine(nn.Module):
        out_channels = 3

    assert "it lacks forward(images_I3HW, sizes_I2)." in refused("encoder", Mine)
    message = refused("model", Mine)
    assert "it lacks forward(batch), parameter_groups()" in message


class Net(nn.Module):
    """A model that can be trained, and not score pairs."""

    def __init__(self, vocab_size, pad_token_id, heads):
        super().__init__()

    def forward(self, batch):
        return batch

    def parameter_groups(self):
        return {}


def test_a_model_for_retrieval_is_told_what_it_lacks_before_training():
    class Half(Net):
        def encode_images(self, batch):
            return batch

        def fuse(self, words, mask):
            return words

    registry.register_model("mine")(Half)
    processors = {"text": SimpleNamespace(vocab_size=3, pad_token_id=0)}
    task = registry.build("task", "retrieval", {}, "task_config.retrieval", processors={})
    with pytest.raises(UserError) as error:
        build_model(Component("mine"), task, processors, seed=1)
    message = str(error.value)
    assert message.startswith("model 'mine' (") and "it lacks embed_texts(input_ids_RL), cls_logits(words_QLD); " in message
    assert "fuse is called with (words_QLD, text_mask_QL, pixels_QKD, pixel_mask_QK), but takes (words, mask)" in message
    assert message.endswith("docs/extending.md lists what the task 'retrieval' needs")
    assert isinstance(build_model(Component("mine"), registry_task(), processors, seed=1), Half)


def test_a_model_for_retrieval_scores_pairs_by_what_it_has():
    class Towers(Net):
        def encode_images(self, batch): ...

        def embed_texts(self, input_ids): ...

        def fuse(self, words, text_mask, pixels, pixel_mask):
            return words + pixels, pixels, None

        def cls_logits(self, words):
            return {"itm": words[:, 0]}

    registry.register_model("mine")(Towers)
    processors = {"text": SimpleNamespace(vocab_size=3, pad_token_id=0)}
    task = registry.build("task", "retrieval", processors={})
    built = build_model(Component("mine"), task, processors, seed=1)
    logits = built.pair_logits(torch.ones(2, 1, 3), None, torch.full((2, 1, 3), 2.0), None)
    assert logits["itm"].tolist() == [[3.0] * 3] * 2


def registry_task():
    return type("Mine", (Whole,), {"scores_all_pairs": False})({})


@pytest.mark.parametrize("takes", ["", "update", "update, epoch, progress, more"])
def test_a_schedule_that_takes_other_arguments(takes):
    scope: dict = {}
    exec(f"class Mine:\n    def __call__(self{', ' if takes else ''}{takes}):\n        return 1.0\n", scope)
    assert f"__call__ is called with (update, epoch, progress), but takes ({takes})" in refused("scheduler", scope["Mine"])


def test_a_schedule_that_is_a_function_making_functions():
    registry.register_scheduler("mine")(lambda: lambda update, epoch, progress: 0.5 * update)
    assert registry.build("scheduler", "mine")(3, 0.0, 0.0) == 1.5
    catalogue.REGISTRY.pop(("pixelbert_plugin", "schedulers", "mine"))
    assert "__call__ is called with (update, epoch" in not_built("scheduler", lambda: lambda update: 1.0)


def test_a_schedule_of_two_arguments_goes_on_working_with_a_notice(caplog):
    class Mine:
        def __call__(self, update, epoch):
            return update + 10 * epoch

    registry.register_scheduler("mine")(Mine)
    assert registry.build("scheduler", "mine")(3, 0.5, 0.9) == 8
    assert "scheduler 'mine' (" in caplog.text and "is called with (update, epoch, progress) now" in caplog.text


def test_a_metric_that_is_not_callable_or_takes_other_arguments():
    message = refused("metric", {"accuracy": 1})
    assert "it is no class or function, but a value of type dict." in message and "test_interfaces.py:" in message
    message = refused("metric", lambda prediction: 1.0)
    assert "it is called with (prediction, answers), but takes (prediction)." in message


def test_a_precision_without_step():
    class Mine:
        def __init__(self, device):
            self.device, self.description = device, {}

        def prepare(self, model, optimizers): ...

        def autocast(self): ...

        def backward(self, loss, is_last=True): ...

        def optimized(self, model): ...

    assert "it lacks step(optimizers, max_norm)." in refused("precision", Mine)
    Mine.step = lambda self, optimizers, max_norm: None
    registry.register_precision("mine")(Mine)
    precision = registry.build("precision", "mine", None, "p", device=torch.device("cpu"))
    assert (precision.skips_overflow, precision.loss_scale, precision.state_dict()) == (False, None, {})


def test_a_builder_without_samples_and_one_of_its_own():
    assert "it lacks samples(split)." in refused("builder", type("Mine", (Builder,), {}))
    message = refused("builder", type("Mine", (), {"samples": lambda self, split: []}))
    assert "it lacks has_split(split), own_splits(), source_split(split), files(split), count(split, samples); " in message


def test_what_is_built_with_other_arguments():
    class Late(Whole):
        def __init__(self, config, processors):
            pass

    message = refused("task", Late)
    assert "it is built with (processors=…), as it has no Config, but takes (config, processors)." in message

    @dataclass
    class Options:
        depth: int = 1

    message = refused("task", type("Mine", (Whole,), {"Config": Options}))
    assert "it is built with (config, processors=…), but takes (processors)." in message
    assert "it is built with (named_parameters=…), as it has no Config, but takes (parameters)." in refused(
        "optimizer", lambda parameters: None
    )


def test_an_optimizer_is_held_to_its_contract_when_it_is_built():
    message = not_built("optimizer", lambda named_parameters: {}, named_parameters=[])
    assert "it lacks step(), zero_grad(), param_groups, state. docs" in message


def test_a_tokenizer_that_answers_for_another_object_is_seen_when_it_is_built():
    class Wrapped:
        def __init__(self):
            self.inner = SimpleNamespace(vocab_size=3, pad_token_id=0)

        def __call__(self, text):
            return [1], False

        def __getattr__(self, name):
            return getattr(vars(self)["inner"], name)

    registry.register_processor("mine")(Wrapped)
    assert registry.build("processor", "mine", None, "p", use="processor of text").vocab_size == 3


def test_pretraining_tells_what_a_tokenizer_lacks_for_masks():
    class Mine:
        vocab_size, pad_token_id = 3, 0

        def __call__(self, text):
            return [1], False

        def decode(self, ids):
            return ""

    registry.register_processor("mine")(Mine)
    text = registry.build("processor", "mine", None, "processors.text.params", use="processor of text")
    with pytest.raises(UserError) as error:
        registry.build("task", "pretrain", {}, "task_config.pretrain", processors={"text": text})
    message = str(error.value)
    assert message.startswith("processor 'mine' (") and "it lacks pieces(), mask_token_id. docs" in message
    assert message.endswith("lists what the task 'pretrain' needs")


def test_the_rule_of_an_optimizer_that_names_none_is_its_class():
    registry.register_optimizer("mine")(lambda named_parameters: torch.optim.SGD([p for _, p in named_parameters]))
    optimizer = registry.build("optimizer", "mine", None, "o", named_parameters=[("a", nn.Parameter(torch.zeros(1)))])
    assert rule(optimizer) == rule(torch.optim.SGD(optimizer.param_groups)) == "SGD" and not optimizer.has_float32_state


def test_a_property_is_not_asked_for_its_value():
    """A vocabulary may be there only later."""
    text = registry.build("processor", "bert_tokenizer", {"vocabulary": "train"}, "processors.text.params")
    assert text.needs_fit


def test_a_processor_in_anothers_place_is_told_what_it_lacks():
    with pytest.raises(UserError, match=r"^processors.answers.type: 'image' is no processor of answers \(it lacks .*scores\("):
        registry.build("processor", "image", {}, "processors.answers.params", use="processor of answers")


def test_what_a_component_is_is_told_by_its_methods():
    def what(kind, name):
        return contracts.use_of(kind, registry.get(kind, name)).contract

    assert what("encoder", "bert") is interfaces.TextEncoder and what("encoder", "resnet50") is interfaces.ImageEncoder
    assert what("processor", "bert_tokenizer") is interfaces.TextProcessor  # though it has decode, as image processors do
    assert what("processor", "image") is interfaces.ImageProcessor
    assert what("processor", "answers") is interfaces.AnswersProcessor
    assert what("task", "retrieval") is interfaces.MatchingTask and what("task", "vqa") is interfaces.Task


LETTERS = """
from pixelbert_plugin import registry
from pixelbert_plugin.processors.image import ImageConfig, ImageProcessor


@registry.register_processor("letters")
class Letters:
    vocab_size, pad_token_id = 40, 0

    def __call__(self, text):
        return [1] + [2 + ord(letter) % 38 for letter in text.lower()][:10], len(text) > 10


@registry.register_processor("small_images")
class SmallImages:
    def __init__(self):
        self.inner = ImageProcessor(ImageConfig(short_edge=64, long_edge=96))

    def decode(self, path):
        return self.inner.decode(path)

    def augment(self, image, seed):
        return image

    def resized(self, height, width):
        return self.inner.resized(height, width)

    def __call__(self, images, device="cpu"):
        return self.inner(images, device)
"""


def test_processors_without_config_train_and_evaluate_retrieval(vqa2_root, tmp_path, capsys, caplog):
    (tmp_path / "letters.py").write_text(LETTERS)
    processors = {**TINY["processors"], "text": {"type": "letters"}, "image": {"type": "small_images"}}
    config = write_config(
        tmp_path / "c.yaml",
        vqa2_root,
        tmp_path / "run",
        task="retrieval",
        processors=processors,
        task_config={"retrieval": {"num_negatives": 2, "num_hardest": 1}},
    )
    assert cli.main([f"config={config}", f"env.user_dir={tmp_path / 'letters.py'}", "training.max_updates=1"]) == 0
    told = capsys.readouterr()
    assert "are longer than it takes, and are cut" in f"{told.out}{told.err}{caplog.text}"
    assert (tmp_path / "run/predictions/val_vqa2.safetensors").is_file()


class Learns:
    """A text processor that learns its vocabulary, but keeps nothing of it."""

    vocab_size, pad_token_id, needs_fit = 3, 0, True

    def __call__(self, text):
        return [1], False

    def fit(self, texts):
        pass


class Derives(Learns, interfaces.TextProcessor):
    """The contract's own methods keep nothing."""


@pytest.mark.parametrize("component", [Learns, Derives])
def test_what_learns_is_told_what_it_lacks_to_be_kept(component):
    message = not_built("processor", component)
    assert f"processor 'mine' ({registry.location(component)}): needs_fit is true" in message
    assert "so that it must have state_dict(), load_state_dict(state), by which checkpoints keep what it learns" in message


def test_what_learns_is_told_how_its_fit_is_called():
    class Mine(Learns):
        state_dict = dict
        load_state_dict = fit = lambda self: None

    message = not_built("processor", Mine)
    assert "fit is called with (texts), but takes ()" in message
    assert "load_state_dict is called with (state), but takes ()" in message


def test_what_needs_not_learn_need_not_be_kept():
    registry.register_processor("mine")(type("Read", (Learns,), {"needs_fit": False}))
    assert registry.build("processor", "mine").state_dict() == {}


def test_the_document_lists_every_member_of_every_contract():
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    table = text[text.index("## What each kind must have") :]
    for uses in contracts.USES.values():
        for use in uses:
            found = contracts.members(use.contract)
            learned = contracts.members(use.learning).methods if use.learning else ()
            for name in (*found.methods, *found.attributes, *found.optional, *learned, *use.context):
                called = "(prediction, answers)" if use.contract is interfaces.Metric else name
                assert f"`{called}" in table or f" {called}" in table, (use.contract, name)
