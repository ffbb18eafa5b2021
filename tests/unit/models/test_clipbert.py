"""ClipBERT's checkpoints: a file in its layout, read into Pixel-BERT, against its network written out here in plain torch."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint import restore
from pixelbert_plugin.checkpoint.readers import reader_of
from pixelbert_plugin.checkpoint.start import PRETRAINED, Start
from pixelbert_plugin.checkpoint.weights import mentions
from pixelbert_plugin.config.options import RunConfig
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.models.clipbert import OPTIONS
from pixelbert_plugin.types import Batch
from unit.encoders import test_cnn_formats as cnn

D, HEADS, LAYERS, VOCABULARY, POSITIONS, GRID = 32, 4, 2, 60, 16, 100
SIZES = [(96, 160), (130, 75)]
EPS = 1e-12


def random_state() -> dict[str, Tensor]:
    """Names as ClipBert.state_dict() has them: e2e_model.py, grid_feat.py, modeling.py, transformers.py."""
    draw = torch.Generator().manual_seed(4)

    def normal(*shape, std=0.3):
        return torch.randn(shape, generator=draw) * std

    def norm(name):
        return {f"{name}.weight": 1 + normal(D), f"{name}.bias": normal(D)}

    def linear(name, out, into):
        return {f"{name}.weight": normal(out, into, std=into**-0.5), f"{name}.bias": normal(out)}

    state = {f"cnn.feature.backbone.{name}": value for name, value in cnn.random_state(cnn.SOURCES["msra"], seed=5).items()}
    state |= {"cnn.feature.pixel_mean": torch.zeros(3, 1, 1), "cnn.feature.roi_heads.box_predictor.attr_score.bias": normal(4)}
    state["cnn.grid_encoder.0.weight"] = normal(D, 2048, 3, 3, std=(2048 * 9) ** -0.5)
    bert, visual, heads = "transformer.bert", "transformer.bert.visual_embeddings", "transformer.cls"
    for name, size in (("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)):
        state[f"{bert}.embeddings.{name}_embeddings.weight"] = normal(size, D)
    state |= norm(f"{bert}.embeddings.LayerNorm") | norm(f"{visual}.LayerNorm")
    for name, size in (("position", POSITIONS), ("row_position", GRID), ("col_position", GRID), ("token_type", 1)):
        state[f"{visual}.{name}_embeddings.weight"] = normal(size, D)
    for layer in range(LAYERS):
        place = f"{bert}.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            state |= linear(f"{place}.attention.self.{part}", D, D)
        state |= linear(f"{place}.attention.output.dense", D, D) | norm(f"{place}.attention.output.LayerNorm")
        state |= linear(f"{place}.intermediate.dense", 2 * D, D) | linear(f"{place}.output.dense", D, 2 * D)
        state |= norm(f"{place}.output.LayerNorm")
    state |= linear(f"{bert}.pooler.dense", D, D)
    state |= linear(f"{heads}.predictions.transform.dense", D, D) | norm(f"{heads}.predictions.transform.LayerNorm")
    state[f"{heads}.predictions.bias"] = normal(VOCABULARY)
    state[f"{heads}.predictions.decoder.weight"] = state[f"{bert}.embeddings.word_embeddings.weight"]
    return state | linear(f"{heads}.seq_relationship", 2, D)


def reference(state: dict[str, Tensor], image: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Last states of words and of pixels, logits of MLM at every word and of ITM, for one image and one text."""

    def linear(name, values):
        return values @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name, values):
        centred = values - values.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + EPS).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def gelu(values):
        return values * 0.5 * (1 + torch.erf(values / math.sqrt(2)))

    prefix = "cnn.feature.backbone."
    backbone = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    grid = F.conv2d(cnn.reference(backbone, image, cnn.SOURCES["msra"])[None], state["cnn.grid_encoder.0.weight"], padding=1)
    grid = F.max_pool2d(grid, 2, 2).relu()[0].permute(1, 2, 0)  # rows columns D
    bert, visual, heads = "transformer.bert", "transformer.bert.visual_embeddings", "transformer.cls"
    grid = grid + state[f"{visual}.row_position_embeddings.weight"][: grid.shape[0], None]
    grid = grid + state[f"{visual}.col_position_embeddings.weight"][None, : grid.shape[1]]
    pixels = norm(f"{visual}.LayerNorm", grid.flatten(0, 1) + state[f"{visual}.token_type_embeddings.weight"][0])
    words = (
        state[f"{bert}.embeddings.word_embeddings.weight"][ids] + state[f"{bert}.embeddings.token_type_embeddings.weight"][0]
    )
    words = norm(f"{bert}.embeddings.LayerNorm", words + state[f"{bert}.embeddings.position_embeddings.weight"][: len(ids)])
    hidden = torch.cat([words, pixels])
    for layer in range(LAYERS):
        place = f"{bert}.encoder.layer.{layer}"
        query, key, value = (
            linear(f"{place}.attention.self.{part}", hidden).unflatten(-1, (HEADS, -1)).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        attended = (query @ key.transpose(1, 2) / math.sqrt(D // HEADS)).softmax(-1) @ value
        attended = linear(f"{place}.attention.output.dense", attended.transpose(0, 1).flatten(1))
        hidden = norm(f"{place}.attention.output.LayerNorm", hidden + attended)
        inner = linear(f"{place}.output.dense", gelu(linear(f"{place}.intermediate.dense", hidden)))
        hidden = norm(f"{place}.output.LayerNorm", hidden + inner)
    words, pixels = hidden[: len(ids)], hidden[len(ids) :]
    inner = norm(f"{heads}.predictions.transform.LayerNorm", gelu(linear(f"{heads}.predictions.transform.dense", words)))
    mlm = inner @ state[f"{heads}.predictions.decoder.weight"].T + state[f"{heads}.predictions.bias"]
    itm = linear(f"{heads}.seq_relationship", linear(f"{bert}.pooler.dense", words[0]).tanh())
    return words, pixels, mlm, itm


def options(**changes) -> dict:
    """model_config.pixelbert as docs/weights.md lists it, with a small CNN and transformer."""
    sizes = {"hidden_size": D, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 2 * D}
    made: dict = {
        "image_encoder": {"type": "test_small_resnet", "params": {}},
        "text_encoder": {"type": "bert", "params": {**sizes, "max_position_embeddings": POSITIONS}},
    }
    for key, value in {**OPTIONS, **changes}.items():
        node = made
        *parts, last = key.split(".")
        for part in parts:
            node = node[part]
        node[last] = value
    return made


def build(**changes):
    heads = {"mlm": VOCABULARY, "itm": 2}
    return registry.build(
        "model", "pixelbert", options(**changes), "model_config.pixelbert", vocab_size=VOCABULARY, heads=heads
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, dict[str, Tensor]]:
    state = random_state()
    path = tmp_path_factory.mktemp("clipbert") / "image_text_pretrained.pt"
    torch.save(state, path)
    return path, state


def batch_of(texts: list[Tensor], images: list[Tensor]) -> Batch:
    height, width = (max(size[axis] for size in SIZES) for axis in (0, 1))
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    padded = torch.zeros(len(images), 3, height, width)
    for place, image in zip(padded, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = (image.float() / 255 - mean) / std
    longest = max(map(len, texts))
    ids = torch.stack([F.pad(text, (0, longest - len(text))) for text in texts])
    mask = torch.stack([torch.arange(longest) < len(text) for text in texts])
    positions = mask.flatten().nonzero()[:, 0]
    return Batch(
        sample_ids=[0, 1],
        input_ids=ids,
        text_mask=mask,
        images=padded,
        image_sizes=torch.tensor(SIZES),
        image_index=torch.tensor([[0], [1]]),
        image_seeds=torch.zeros(2, dtype=torch.int64),
        weights=torch.ones(2),
        targets={"mlm_positions": positions},
    )


WITH_STATISTICS = dataclasses.replace(cnn.SOURCES["msra"], has_statistics=True)


@pytest.fixture(scope="module")
def own_cnn(tmp_path_factory, saved) -> tuple[Path, dict[str, Tensor]]:
    """A checkpoint of zezeze97/pixelbert's PixelBertWithResNet50: a ResNet-50 of its own, norms with statistics; and the same
    in ClipBERT's names."""
    rest = {name: value for name, value in saved[1].items() if not name.startswith("cnn.feature.")}
    backbone = cnn.random_state(WITH_STATISTICS, seed=6)
    theirs = {f"cnn.{name.replace('layer', 'stage')}": value for name, value in cnn.as_torchvision(backbone).items()}
    counts = {name.replace("running_var", "num_batches_tracked"): torch.tensor(7) for name in theirs if "running_var" in name}
    path = tmp_path_factory.mktemp("own") / "model_step_7.pt"
    torch.save({**theirs, **counts, **rest}, path)
    return path, {**{f"cnn.feature.backbone.{name}": value for name, value in backbone.items()}, **rest}


@pytest.mark.parametrize("of", ["saved", "own_cnn"])
def test_text_pixels_and_logits_are_clipberts(of, request):
    path, state = request.getfixturevalue(of)
    model = build(**({"image_encoder.params.norm": "trainable"} if of == "own_cnn" else {})).eval()
    start = Start.read(path, PRETRAINED)
    assert ("image_encoder.params.norm" in start.content["model_options"]) is (of == "saved")
    start.load_weights(model, {"mlm": VOCABULARY, "itm": 2}, is_training=True)
    draw = torch.Generator().manual_seed(8)
    images = [torch.randint(0, 256, (3, *size), generator=draw, dtype=torch.uint8) for size in SIZES]
    texts = [torch.randint(1, VOCABULARY, (length,), generator=draw) for length in (9, 5)]
    with torch.no_grad():
        output = model(batch_of(texts, images))
    places = output.logits["mlm"].split([len(text) for text in texts])
    for row, (image, text) in enumerate(zip(images, texts, strict=True)):
        words, pixels, mlm, itm = reference(state, image, text)
        found = [
            output.text[row, : len(text)],
            output.pixels[row][output.pixel_mask[row]],
            places[row],
            output.logits["itm"][row],
        ]
        for own, expected in zip(found, (words, pixels, mlm, itm), strict=True):
            assert own.shape == expected.shape
            assert float((own - expected).abs().max() / expected.abs().max()) < 1e-4


def test_every_tensor_is_used_or_named(saved, caplog):
    caplog.set_level("INFO")
    path, _ = saved
    model = build()
    assert mentions(path, "cnn.grid_encoder.0.weight") and type(reader_of(path)).__name__ == "ClipBertCheckpoint"
    weights = restore.read_model(path)
    own = {name: value.shape for name, value in model.state_dict().items() if "num_batches_tracked" not in name}
    assert {name: value.shape for name, value in weights.items()} == own  # none is left as it was initialised
    unused = [
        "cnn.feature.pixel_mean",
        "cnn.feature.roi_heads.box_predictor.attr_score.bias",
        "transformer.bert.visual_embeddings.position_embeddings.weight",
        "transformer.cls.predictions.decoder.weight",
    ]
    assert f"4 of no use here, as expected: {', '.join(unused)}" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"image_encoder.params.stride_in_1x1": None},
        {"image_encoder.params.max_pool": True},
        {"image_encoder.params.norm": "trainable"},
        {"projection": "linear"},
        {"pixel_layer_norm_eps": 1e-5},
        {"pooler": False},
    ],
)
def test_a_model_of_other_conventions_is_refused_with_the_line_that_mends_it(saved, change):
    ((key, value),) = change.items()
    config = RunConfig(datasets=["vqa2"])
    config.model_config["pixelbert"] = registry.configure("model", "pixelbert", options(**change), "model_config.pixelbert")
    start = Start.read(saved[0], PRETRAINED)
    with pytest.raises(UserError) as error:
        start.require_options(config.chosen_model, config.processors.image)
    assert str(error.value).startswith(f"model_config.pixelbert.{key}: {value}, but the network of checkpoint.pretrained=")
    assert f" has {OPTIONS[key]}; set it so" in str(error.value)
    config.model_config["pixelbert"] = registry.configure("model", "pixelbert", options(), "model_config.pixelbert")
    config.processors.image.params = registry.configure("processor", "image", {"std": [1, 1, 1]}, "processors.image.params")
    with pytest.raises(
        UserError, match=r"^processors.image.params.std: \[1.0, 1.0, 1.0\], but the network of .* has \[0.229, 0"
    ):
        start.require_options(config.chosen_model, config.processors.image)
    config.processors.image.params = registry.configure("processor", "image", {}, "processors.image.params")
    start.require_options(config.chosen_model, config.processors.image)


@pytest.mark.parametrize("task", ["vqa2", "nlvr2", "flickr30k_retrieval"])
def test_the_shipped_configurations_are_of_its_network_and_else_the_papers(saved, task):
    config = configuration.resolve(f"projects/pixelbert/configs/{task}_from_clipbert.yaml")
    Start.read(saved[0], PRETRAINED).require_options(config.chosen_model, config.processors.image)
    papers, own = (
        configuration.leaves(each) for each in (configuration.resolve(f"projects/pixelbert/configs/{task}.yaml"), config)
    )
    changed = {key for key in own if own[key] != papers[key]} - {"env.save_dir", "checkpoint.pretrained"}
    model = "model_config.pixelbert"
    weights = {f"{model}.{encoder}.params.weights" for encoder in ("image_encoder", "text_encoder")}
    sizes = {"processors.image.params.short_edge", "processors.image.params.long_edge"}
    assert changed == weights | sizes | {f"{model}.{key}" for key in OPTIONS}


def test_gc_attention_is_refused_by_name(own_cnn, tmp_path):
    state = torch.load(own_cnn[0]) | {"cnn.stage2.3.context_block.conv_mask.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "gcb.pt")
    with pytest.raises(UserError, match=r"gcb.pt': not a checkpoint of ClipBERT's \(.*its CNN has GC attention, which is not"):
        Start.read(tmp_path / "gcb.pt", PRETRAINED)


def test_another_file_is_none_of_clipberts(saved, tmp_path):
    state = {name: value for name, value in saved[1].items() if "visual_embeddings.token_type" not in name}
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(UserError, match=r"checkpoint.pretrained='.*part.pt': not a checkpoint of ClipBERT's"):
        Start.read(tmp_path / "part.pt", PRETRAINED)
    (tmp_path / "text.pt").write_text(json.dumps({"a": 1}))
    assert not mentions(tmp_path / "text.pt", "cnn.grid_encoder.0.weight")
    torch.save(saved[1], tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert mentions(tmp_path / "old.pt", "cnn.grid_encoder.0.weight")
