"""`load`: a checkpoint alone is enough, and gives bit for bit what the run's own model gives."""

import io
import json
import shutil
from pathlib import Path

import load_alone
import numpy as np
import pytest
import torch
import torchvision
import transformers
from conftest import TINY, make_vqa2, write_config
from PIL import Image
from preloaded import start
from safetensors.torch import load_file

import pixelbert_plugin
from pixelbert_plugin import UserError, load, registry
from pixelbert_plugin import config as configuration
from pixelbert_plugin.build import build_model, learn_task
from pixelbert_plugin.checkpoint import export as export_file
from pixelbert_plugin.checkpoint import restore
from pixelbert_plugin.checkpoint.start import Start
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.data.loader import ready
from pixelbert_plugin.data.reader import BatchReader, MicroBatch
from pixelbert_plugin.data.run_data import RunData, build_builders
from pixelbert_plugin.loading import LoadedModel
from pixelbert_plugin.run import export
from pixelbert_plugin.system.digest import digest_of

PLUGIN = '''
from pixelbert_plugin import Builder, Sample, register_builder, register_encoder
from pixelbert_plugin.encoders.resnet import ResNet18


class Discs(Builder):
    images = 1

    def samples(self, split):
        files = sorted((self.data_dir / f"coco/{split}2014").glob("*.jpg"))
        made = []
        for number, file in enumerate(files):
            images = (file, files[number - 1])[: self.images]
            answer = ("yes", "no")[number % 2] if self.images == 1 else ("True", "False")[number % 2]
            made.append(Sample(sample_id=f"{split}-{number}-0-0", image_ids=tuple(image.name for image in images),
                               images=images, text=f"is the disc {'red' if number % 3 else 'blue'}?",
                               answers=(answer,), answer=answer))
        return made


@register_builder("discs")
class OneDisc(Discs):
    """One picture to each question."""


@register_builder("disc_pairs")
class TwoDiscs(Discs):
    """Two pictures to each statement."""

    images = 2


@register_encoder("own_resnet")
class OwnResNet(ResNet18):
    """A backbone of the plugin's."""
'''
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] is the disc red blue green ? what color".split()
ENCODERS = TINY["model_config"]["pixelbert"]


def make_files(root: Path) -> dict:
    """All that a run may read besides its data: weights of both encoders, a vocabulary of words and one of answers. Returns
    the configuration that names them, with no size of the transformer; each differs from what would be built without."""
    architecture = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=8,
        intermediate_size=48,
        max_position_embeddings=20,
        type_vocab_size=3,
        hidden_act="relu",
        layer_norm_eps=1e-3,
        initializer_range=0.3,
    )
    torch.manual_seed(3)
    transformers.BertForMaskedLM(architecture).save_pretrained(root / "bert")
    (root / "bert/vocab.txt").write_text("\n".join(WORDS))
    resnet = registry.build("encoder", "resnet18").resnet
    torch.save({name: value + 0.01 for name, value in resnet.state_dict().items()}, root / "resnet18.pth")
    (root / "answers.txt").write_text("yes\nno\nperhaps\n")
    return {
        "processors": {
            "text": {"type": "bert_tokenizer", "params": {"vocabulary": str(root / "bert"), "max_length": 12}},
            "image": {"type": "image", "params": {"short_edge": 64, "long_edge": 72}},
            "answers": {"type": "answers", "params": {"vocabulary": str(root / "answers.txt")}},
        },
        "model_config": {
            "pixelbert": {
                "image_encoder": {
                    "type": "resnet18",
                    "params": {"max_pool": False, "weights": str(root / "resnet18.pth")},
                },
                "text_encoder": {"type": "bert", "params": {"weights": str(root / "bert")}},
            }
        },
    }


def own_logits(save_dir: Path, split: str = "val") -> tuple[list[Path], str, dict[str, torch.Tensor]]:
    """Images and text of the split's second sample, and what the model says that is built as a run's evaluation builds it."""
    config = configuration.resolve(save_dir / "config.yaml")
    best = save_dir / "checkpoints/best"
    config.run_type = split
    data = RunData.of(build_builders(config.datasets, config.dataset_config, config.env), config.splits())
    task, processors = learn_task(config.chosen_task, config.processors, data, Start.read(best, "best"))
    model = build_model(config.chosen_model, task, processors, config.training.seed).eval()
    restore.load_weights(best, model, "best")
    reader = BatchReader(data.splits[split], processors["text"], processors["image"], task.prepare, config.training.seed)
    batch = reader.read(MicroBatch(0, np.array([1]), train=False)).batch
    batch = ready(batch, processors["image"], torch.device("cpu"))
    with torch.no_grad():
        logits = model(batch).logits
    return list(data.splits[split][1].images), data.splits[split][1].text, logits


def train(root: Path, name: str, *overrides: str, **changes) -> Path:
    """The save folder of a short run on the plugin's data set."""
    config = write_config(root / f"{name}.yaml", root / "official", root / name, **changes)
    pixelbert_plugin.run(config, overrides=[f"env.user_dir={root / 'plugin.py'}", "training.max_updates=2", *overrides])
    return root / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, dict]:
    """A folder that holds trained runs and nothing that they were made of; and what their own models said before."""
    root = tmp_path_factory.mktemp("made")
    make_vqa2(root / "official")
    (root / "plugin.py").write_text(PLUGIN)
    named = make_files(root)
    folders = {
        "vqa": train(root, "vqa", datasets=["discs"], **named),
        "pairs": train(root, "pairs", "task=nlvr2", datasets=["disc_pairs"]),
        "own": train(root, "own", "model_config.pixelbert.image_encoder.type=own_resnet", datasets=["discs"]),
        "pretrain": train(root, "pretrain", "task=pretrain", datasets=["discs"], training=TINY["training"] | {"batch_size": 8}),
    }
    said = {name: own_logits(folder) for name, folder in folders.items() if name != "pretrain"}
    alone = tmp_path_factory.mktemp("alone")
    for name, folder in folders.items():
        shutil.copytree(folder, alone / name, symlinks=True)
        export(configuration.load(str(folder / "config.yaml")), alone / f"{name}.safetensors")
    (alone / "images").mkdir()
    for images, _, _ in said.values():
        for image in images:
            shutil.copy(image, alone / "images" / image.name)
    old = restore.read_content(folders["vqa"] / "checkpoints/best", "best")
    del old["portable"]
    export_file.write(alone / "old.safetensors", restore.read_model(folders["vqa"] / "checkpoints/best"), old)
    root.rename(root.with_name("gone"))
    return alone, said


def paths(root: Path, name: str) -> list[Path]:
    return [root / name, root / name / "checkpoints/best", root / f"{name}.safetensors"]


@pytest.mark.parametrize("name", ["vqa", "pairs"])
def test_a_checkpoint_alone_gives_what_the_run_gave_bit_for_bit(runs, name, tmp_path):
    """In another process and folder, without data, plugin, weights, vocabularies or network."""
    root, said = runs
    images, text, expected = said[name]
    here = ",".join(str(root / "images" / image.name) for image in images)
    arguments = [str(tmp_path), here, text, str(tmp_path / "logits.pt"), *map(str, paths(root, name))]
    process = start(load_alone.logits, arguments, tmp_path / "output.txt")
    process.join()
    assert process.exitcode == 0, (tmp_path / "output.txt").read_text()
    for logits in torch.load(tmp_path / "logits.pt"):
        assert logits.keys() == expected.keys()
        assert all(torch.equal(logits[head], expected[head]) for head in expected)


def test_what_is_loaded_is_ready_and_says_what_it_is(runs):
    root, _ = runs
    state = torch.random.get_rng_state()
    loaded = load(root / "vqa")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not loaded.model.training and loaded.device.type == "cpu" and loaded.path == root / "vqa/checkpoints/best"
    assert loaded.task.heads() == {"answers": 3} and loaded.processors.keys() == {"text", "image", "answers"}
    assert loaded.processors["answers"].answers == ["yes", "no", "perhaps"] and loaded.config.task == "vqa"
    assert loaded.processors["text"].vocab_size == len(WORDS) and loaded.config.processors.image.params.long_edge == 72
    output = loaded(next((root / "images").iterdir()), "is the disc red?")
    assert isinstance(output, pixelbert_plugin.ModelOutput) and not output.logits["answers"].requires_grad


def test_an_image_may_be_given_in_any_form(runs, tmp_path):
    """A picture, one that EXIF turns, one with transparency and a large one, as path, bytes, Pillow's image and array."""
    root, _ = runs
    loaded, text = load(root / "vqa"), "is the disc blue?"
    source = Image.open(next((root / "images").iterdir()))
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row of the file is the right side
    source.save(tmp_path / "turned.jpg", exif=exif)
    source.convert("RGBA").save(tmp_path / "alpha.png")
    source.resize((400, 300)).save(tmp_path / "large.png")  # more than twice as large as needed: reduced first
    for file in (Path(source.filename), *sorted(tmp_path.iterdir())):
        expected = loaded(file, text).logits["answers"]
        pillow = Image.open(file)
        upright = np.asarray(pillow.convert("RGB"))
        upright = np.rot90(upright, -1) if file.name == "turned.jpg" else upright
        content = file.read_bytes()
        for image in (str(file), content, io.BytesIO(content).getbuffer(), pillow, upright, [file]):
            assert torch.equal(loaded(image, text).logits["answers"], expected), (file, type(image))
        assert pillow.size == Image.open(file).size
    assert len(list(tmp_path.iterdir())) == 3


def test_several_pairs_go_through_together(runs):
    root, said = runs
    loaded, images = load(root / "vqa"), sorted((root / "images").iterdir())
    pairs = [(images[0], "is the disc red?"), (images[0], "what color?"), (images[1], "is the disc red?")]
    batch = loaded.batch(pairs)
    assert len(batch) == 3 and len(batch.images) == 2 and batch.image_index.tolist() == [[0], [0], [1]]
    together = loaded.forward(pairs).logits["answers"]
    each = torch.cat([loaded(image, text).logits["answers"] for image, text in pairs])
    torch.testing.assert_close(together, each, rtol=1e-4, atol=1e-4)  # a CPU may sum a larger batch in another order
    two = load(root / "pairs")
    assert two([images[0], images[1]], said["pairs"][1]).logits["pair"].shape == (1, 2)


def test_a_pre_trained_model_says_what_stands_at_the_masks(runs):
    root, _ = runs
    loaded = load(root / "pretrain.safetensors")
    image, size = next((root / "images").iterdir()), loaded.processors["text"].vocab_size
    assert loaded(image, "is the [MASK] [MASK]?").logits["mlm"].shape == (2, size)
    logits = loaded(image, "is the disc red?").logits
    assert logits["mlm"].shape == (0, size) and logits["itm"].shape == (1, 2)


@torch.no_grad()
def test_its_encoders_are_written_for_other_programs(runs, tmp_path):
    root, _ = runs
    loaded = load(root / "vqa")
    written = loaded.save_pretrained(tmp_path / "made/encoders")
    assert {part: Path(file).relative_to(tmp_path / "made/encoders").as_posix() for part, file in written.items()} == {
        "image_encoder": "image_encoder/model.safetensors",
        "text_encoder": "text_encoder/model.safetensors",
        "vocabulary": "text_encoder/tokenizer.json",
    }
    cnn = torchvision.models.resnet18().eval()
    unfit = cnn.load_state_dict(load_file(written["image_encoder"]), strict=False)
    assert unfit.missing_keys == ["fc.weight", "fc.bias"] and not unfit.unexpected_keys
    image = torch.randn(1, 3, 64, 96)
    values = cnn.maxpool(cnn.relu(cnn.bn1(cnn.conv1(image))))
    values = cnn.layer4(cnn.layer3(cnn.layer2(cnn.layer1(values))))
    pixels = loaded.model.image_encoder(image, torch.tensor([[64, 96]])).pixels
    torch.testing.assert_close(pixels, values.flatten(2).transpose(1, 2))
    import timm

    unfit = timm.create_model("resnet18", num_classes=0).load_state_dict(load_file(written["image_encoder"]))
    assert not unfit.missing_keys and not unfit.unexpected_keys

    folder, text = tmp_path / "made/encoders/text_encoder", "is the disc red?"
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert ids == loaded.processors["text"](text)[0]
    bert = transformers.AutoModel.from_pretrained(folder).eval()
    theirs = bert(input_ids=torch.tensor([ids])).last_hidden_state
    encoder = loaded.model.text_encoder
    ours, _ = encoder(encoder.embed(torch.tensor([ids])), torch.ones(1, len(ids), dtype=torch.bool))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)

    with pytest.raises(UserError, match=r"folder='.*encoders': is there already and not empty"):
        loaded.save_pretrained(tmp_path / "made/encoders")


def test_the_command_writes_them_too(runs, tmp_path, capsys):
    root, _ = runs
    arguments = [f"config={root / 'pairs/config.yaml'}", "env.user_dir=null"]  # it is loaded in this process
    assert cli.main([*arguments, "--export-encoders", str(tmp_path / "encoders")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"image_encoder: {tmp_path / 'encoders/image_encoder/model.safetensors'}" and len(lines) == 3
    assert cli.main([*arguments, "--export-encoders", str(tmp_path / "encoders")]) == 2
    assert "is there already and not empty; choose another folder" in capsys.readouterr().err


@torch.no_grad()
def test_it_can_be_made_faster_and_agrees(runs, tmp_path):
    root, said = runs
    (image,), text, expected = said["vqa"]
    images = sorted((root / "images").iterdir())  # of several sizes: padding stays nothing
    exact, fast = load(root / "vqa"), fast_agrees("cpu", root / "vqa", images, text)
    assert torch.equal(exact(root / "images" / image.name, text).logits["answers"], expected["answers"])
    with pytest.raises(UserError, match=r"folder='.*': a model loaded with fast=True is for inference alone; load it without"):
        fast.save_pretrained(tmp_path / "encoders")
    with pytest.raises(UserError, match="no precision is registered as 'bf61'; did you mean bf16"):
        load(root / "vqa", precision="bf61")


def fast_agrees(device: str, run: Path, images: list[Path], text: str) -> LoadedModel:
    """The run's model, loaded onto a device for inference alone, says of each image and of all together what it says on a CPU
    without; in bfloat16 nearly. Returns it."""
    near = 1e-4 if device == "cpu" else 1e-3
    exact, fast = load(run), load(run, fast=True, device=device)
    pairs = [(each, text) for each in images]
    expected = exact.forward(pairs).logits["answers"]
    assert expected.std() > 0.01
    alone = torch.cat([fast(*pair).logits["answers"] for pair in pairs])
    for found in (alone, fast.forward(pairs).logits["answers"]):
        assert found.device.type == device
        torch.testing.assert_close(found.cpu(), expected, rtol=near, atol=near / 10)
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in fast.model.modules())
    half = load(run, fast=True, precision="bf16", device=device).forward(pairs).logits["answers"].float().cpu()
    torch.testing.assert_close(half, expected, rtol=0.1, atol=0.1 * float(expected.abs().max()))
    assert not torch.equal(half, expected)
    return fast


def in_another_process(path: Path, image: Path, user_dir: str, output: Path) -> str:
    process = start(load_alone.answer, [str(path), str(image), user_dir], output)
    process.join()
    assert process.exitcode == 0, output.read_text()
    return output.read_text().splitlines()[-1]


def test_a_plugins_component_needs_its_plugin_and_says_which(runs, tmp_path):
    root, said = runs
    image = root / "images" / said["own"][0][0].name
    for path in (root / "own/checkpoints/best", root / "own.safetensors"):
        line = in_another_process(path, image, "", tmp_path / path.name)
        assert line.startswith(f"error: path='{path}': the encoder 'own_resnet' is of the run's plugin, env.user_dir='"), line
        assert "plugin.py'" in line and "load(…, user_dir=PATH) says where it is now" in line
    (tmp_path / "moved.py").write_text(PLUGIN)
    logits = json.loads(in_another_process(root / "own.safetensors", image, str(tmp_path / "moved.py"), tmp_path / "out.txt"))
    assert logits != [] and len(logits[0]) == said["own"][2]["answers"].shape[1]


def test_the_plugin_is_found_where_the_run_had_it(runs, tmp_path):
    """A run's folder names it relative to itself, so both may have been moved together."""
    root, said = runs
    (tmp_path / "plugin.py").write_text(PLUGIN)
    checkpoint = shutil.copytree((root / "own/checkpoints/best").resolve(), tmp_path / "a/b/c")
    config, digests = checkpoint / "config.yaml", checkpoint / "digests.json"
    former = next(line for line in config.read_text().splitlines() if "user_dir" in line)
    config.write_text(config.read_text().replace(former, "  user_dir: ../../../plugin.py"))
    digests.write_text(json.dumps(json.loads(digests.read_text()) | {"config.yaml": digest_of(config)}))
    image = root / "images" / said["own"][0][0].name
    assert in_another_process(checkpoint, image, "", tmp_path / "out.txt").startswith("[[")


def test_a_checkpoint_of_an_earlier_version_reads_the_files_it_names_again(runs, tmp_path):
    root, said = runs
    with pytest.raises(UserError, match=r"processors\.text\.params\.vocabulary=.*no folder of this name here"):
        load(root / "old.safetensors")
    images, text, expected = said["vqa"]
    made = images[0].parents[3]
    shutil.copytree(made.with_name("gone"), made)
    try:
        logits = load(root / "old.safetensors")(root / "images" / images[0].name, text).logits
        assert torch.equal(logits["answers"], expected["answers"])
    finally:
        shutil.rmtree(made)


def test_what_cannot_be_loaded_is_named_in_one_line(runs, tmp_path):
    root, _ = runs
    (tmp_path / "empty/checkpoints").mkdir(parents=True)
    (tmp_path / "text.safetensors").write_text("no weights")
    damaged = shutil.copytree((root / "vqa/checkpoints/best").resolve(), tmp_path / "damaged")
    (damaged / "state.json").write_text("{}")
    for path, part in (
        ("nowhere", "path='nowhere': no such checkpoint folder, and no exported file"),
        (tmp_path / "empty", "this run has saved no checkpoint yet"),
        (tmp_path / "text.safetensors", "not a file that pixelbert-run --export wrote"),
        (damaged, "state.json is not as it was written"),
    ):
        with pytest.raises(UserError) as caught:
            load(path)
        assert part in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"device='cuda:99'|sees no CUDA"):
        load(root / "vqa", device="cuda:99")
    with pytest.raises(UserError, match="device='gpu'"):
        load(root / "vqa", device="gpu")
    if not torch.backends.mps.is_available():
        with pytest.raises(UserError, match=r"^device='mps': torch cannot compute on it here; use cpu$"):
            load(root / "vqa", device="mps")


def test_a_wrong_image_or_text_is_named(runs):
    root, _ = runs
    loaded, image = load(root / "vqa"), next((root / "images").iterdir())
    for wrong, part in (
        ("nowhere.jpg", "nowhere.jpg: No such file"),
        (b"no image", "the image: not a readable image (8 bytes; no known image format)"),
        (np.zeros((3, 64, 64), np.uint8), "an array of uint8, (3, 64, 64); give a path"),
        (np.zeros((64, 64, 3), np.float32), "an array of float32"),
        (3, "a int; give a path"),
        ([image, image], "2 image(s) to a text: the task 'vqa' has 1"),
        ([], "0 image(s) to a text"),
    ):
        with pytest.raises(UserError) as caught:
            loaded(wrong, "is the disc red?")
        assert part in str(caught.value)
    with pytest.raises(TypeError, match="a text is a str, not bytes"):
        loaded(image, b"is the disc red?")
