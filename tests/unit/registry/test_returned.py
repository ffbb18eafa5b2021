"""What components must not return: each is told with its class and method."""

import numpy as np
import pytest
import torch

from pixelbert_plugin.config.options import ProcessorsConfig
from pixelbert_plugin.data.files import require_files
from pixelbert_plugin.data.vocabularies import build_processor
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import registry, returned
from pixelbert_plugin.types import PixelFeatures

FLAGS = np.zeros(9, dtype=bool)


class Mine:
    """A component whose methods return what they are given."""

    vocab_size = 9

    def __init__(self, found):
        self.found = found
        self.description = found

    def __call__(self, text):
        return self.found

    def heads(self):
        return self.found

    pieces = state_dict = autocast = heads


def of_text(mine):
    returned.text(mine, "a")


@pytest.mark.parametrize(
    ("look", "right", "wrong", "message"),
    [
        (returned.heads, [{"answers": 3}], [["answers"], {"answers": 3.0}, None, {1: 3}], r"heads\(\) must return a dict"),
        (of_text, [([1, 8], False)], [[1, 2], ([1.5], False), ("ab", True), ([1], 0), None], "token ids"),
        (of_text, [([0], True)], [([9], False), ([-1], False), ([], False)], r"ids of 0…8"),
        (
            returned.pieces,
            [(FLAGS, FLAGS)],
            [["a"], (FLAGS.tolist(), FLAGS.tolist()), (FLAGS[:3], FLAGS[:3]), FLAGS],
            "two numpy",
        ),
        (
            returned.state,
            [{}, {"tokenizer": ["a"]}],
            [{"words": {"a"}}, None, ["a"]],
            r"state_dict\(\) must return a dict that JSON",
        ),
        (returned.description, [{"precision": "mine"}], ["mine", {"precision": 3}], "description must return a dict of texts"),
        (returned.autocast, [torch.no_grad()], [None, 3], r"autocast\(\) must return a context manager"),
    ],
)
def test_a_wrong_type_is_told_with_component_and_method(look, right, wrong, message):
    for found in right:
        look(Mine(found))
    for found in wrong:
        with pytest.raises(UserError, match=rf"^Mine \(.*test_returned.py:\d+\): .*{message}"):
            look(Mine(found))


ONE = torch.tensor(1.0)


@pytest.mark.parametrize(
    ("losses", "counts", "message"),
    [
        (
            ONE,
            {"a": ONE},
            r"loss\(output, batch\) must return a dict of scalar tensors .* sum over the batch, not a tensor of shape",
        ),
        ({"a": torch.ones(3)}, {"a": ONE}, r"loss\(output, batch\) must return"),
        ({"a": ONE}, {"a": 1}, r"counts\(batch\) must return a dict .* number of its terms over the batch"),
        ({"a": ONE}, {"b": ONE}, r"counts\(batch\) must return the parts that loss has, \['a'\], not \['b'\]"),
        ({}, {}, "loss"),
    ],
)
def test_losses_are_sums_by_part_with_their_counts(losses, counts, message):
    returned.losses(Mine(0), {"a": ONE}, {"a": ONE})
    with pytest.raises(UserError, match=message):
        returned.losses(Mine(0), losses, counts)


def test_results_and_predictions():
    batch = type("Batch", (), {"__len__": lambda self: 2})()
    with pytest.raises(UserError, match=r"predict\(output, batch\) must return a list of 2 Result, one for each sample"):
        returned.results(Mine(0), [("yes", None)] * 2, batch)
    returned.predictions(Mine(0), (".json", "{}"))
    for wrong in ({"a": 1}, (".json",), (".json", {}), None):
        with pytest.raises(UserError, match=r"predictions\(results\) must return \(a file's suffix, its text\), two str"):
            returned.predictions(Mine(0), wrong)


@pytest.mark.parametrize(
    "change",
    [
        {"mask": torch.ones(2, 6)},  # as a float it would be added to the attention
        {"grid": (2, 4)},
        {"pixels": torch.zeros(2, 5, 6)},  # channels before pixels
        {"mask": torch.ones(2, 5, dtype=torch.bool)},
    ],
)
def test_pixel_features_fit_together(change):
    right = {"pixels": torch.zeros(2, 6, 5), "mask": torch.ones(2, 6, dtype=torch.bool), "grid": (2, 3)}
    returned.pixel_features(Mine(0), PixelFeatures(**right), 2, 5)
    with pytest.raises(UserError, match=r"forward\(images, sizes\) must return pixels of shape \(2, "):
        returned.pixel_features(Mine(0), PixelFeatures(**{**right, **change}), 2, 5)
    with pytest.raises(UserError, match=r"must return PixelFeatures, not a tensor of shape \(2, 6, 5\)"):
        returned.pixel_features(Mine(0), right["pixels"], 2, 5)


def test_files_of_a_builder_are_keys_and_paths(tmp_path):
    for wrong in ([tmp_path], [(tmp_path, "dataset_config.mine.table")], [("key", str(tmp_path))]):
        with pytest.raises(UserError, match=r"^files\(split\) of a builder must give \[\(config key, path\), …\]"):
            require_files(wrong, "")


def test_what_is_learned_must_be_kept_in_checkpoints():
    class Learns:
        vocab_size, pad_token_id, needs_fit = 3, 0, True

        def __call__(self, text):
            return [1], False

        def fit(self, texts):
            pass

    registry.register_processor("learns")(Learns)
    config = ProcessorsConfig()
    config.text.type, config.text.params = "learns", {}
    with pytest.raises(
        UserError, match=r"processor 'learns' \(.*test_returned.py:\d+\): needs_fit is true, so that it must have"
    ):
        build_processor(config, "text")
    Learns.state_dict = lambda self: {"words": []}
    Learns.load_state_dict = lambda self, state: None
    assert isinstance(build_processor(config, "text"), Learns)
