"""Shared fixtures: a tiny VQA 2.0 in the official files' format, and a configuration that trains on it in seconds.

`pytest` without a file or folder shares the files out among the machine's cores, by pytest-xdist; `-n 0` does not.
"""

import json
import os
import random
import shutil
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one core a worker, also for the programs it starts; torch reads it when imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
import yaml
from hypothesis import settings
from PIL import Image, ImageDraw

from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.registry import plugins

settings.register_profile("busy", deadline=None)  # other tests run at the same time: how long one example takes says nothing
settings.load_profile("busy")

ROOT = Path(__file__).parents[1]  # of the repository
COLORS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220)}
IMAGES = {"train": 12, "val": 5}


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """The whole suite on every core: a file's tests share fixtures, so they stay together, the longest files first."""
    options = config.option
    is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not options.usepdb
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # already one of several
    if is_whole and config.pluginmanager.hasplugin("xdist") and options.numprocesses is None and os.cpu_count() > 1:
        options.numprocesses, options.dist, options.loadscopereorder = min(8, os.cpu_count()), "loadfile", False


@pytest.fixture(scope="session", autouse=True)
def components():
    """The built-in components, registered once."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    plugins.load()


@pytest.fixture(autouse=True)
def same_draws():
    """A test's weights and numbers are the same each time, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


_shared: dict[Path, dict] = {}  # folders that several tests read, and the files in them


def files_in(root: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}


def share(root: Path) -> Path:
    """From now on a test that changes a file in this folder fails, rather than another one later."""
    _shared[root] = files_in(root)
    return root


@pytest.fixture(autouse=True)
def shared_files_stay():
    yield
    for root, files in _shared.items():
        found = files_in(root)
        changed = sorted(str(path) for path in files.keys() | found.keys() if files.get(path) != found.get(path))
        _shared[root] = found
        assert not changed, f"this test changed shared files, where it needs its own: {changed}"


def damage(path: Path, change) -> None:
    """Change a JSON file's content in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def draw_image(path: Path, color: str, seed: int, size: tuple[int, int] = (64, 48)) -> None:
    """A coloured disc somewhere on a noisy ground; `size` is width, height."""
    draw = random.Random(seed)
    noise = np.random.default_rng(seed).normal(128, 40, (size[1], size[0]))
    image = Image.fromarray(noise.clip(0, 255).astype(np.uint8)).convert("RGB")
    x, y = draw.randint(0, size[0] - 24), draw.randint(0, size[1] - 24)
    ImageDraw.Draw(image).ellipse((x, y, x + 22, y + 22), fill=COLORS[color])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def make_vqa2(root: Path) -> Path:
    """Official-format questions, annotations (ten answers each) and images of train and val; questions only for test."""
    random.seed(0)
    for split, count in IMAGES.items():
        questions, annotations = [], []
        for number in range(count):
            image_id = 100 + number if split == "train" else 900 + number
            color = random.choice(list(COLORS))
            size = random.choice([(64, 48), (48, 64), (60, 60)])
            draw_image(root / f"coco/{split}2014/COCO_{split}2014_{image_id:012d}.jpg", color, image_id, size)
            other = random.choice(list(COLORS))
            asked = [
                ("What color is the disc?", color, "other", "what color is the"),
                (f"Is the disc {other}?", "yes" if other == color else "no", "yes/no", "is the"),
                ("How many discs are there?", "1", "number", "how many"),
            ]
            for place, (text, answer, answer_type, question_type) in enumerate(asked):
                question_id = image_id * 1000 + place
                questions.append({"image_id": image_id, "question": text, "question_id": question_id})
                answers = [answer] * 8 + random.choices([answer, "maybe", "gray"], k=2)
                annotations.append(
                    {
                        "question_id": question_id,
                        "image_id": image_id,
                        "question_type": question_type,
                        "answer_type": answer_type,
                        "multiple_choice_answer": answer,
                        "answers": [
                            {"answer": text, "answer_confidence": "yes", "answer_id": index + 1}
                            for index, text in enumerate(answers)
                        ],
                    }
                )
        folder = root / "vqa2"
        folder.mkdir(exist_ok=True)
        header = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": f"{split}2014"}
        name = f"v2_OpenEnded_mscoco_{split}2014_questions.json"
        (folder / name).write_text(json.dumps({**header, "task_type": "Open-Ended", "questions": questions}))
        (folder / f"v2_mscoco_{split}2014_annotations.json").write_text(json.dumps({**header, "annotations": annotations}))
    return root


@pytest.fixture(scope="session")
def vqa2_root(tmp_path_factory) -> Path:
    """A tiny VQA 2.0; read only."""
    return share(make_vqa2(tmp_path_factory.mktemp("official")))


@pytest.fixture
def own_vqa2_root(tmp_path) -> Path:
    """A tiny VQA 2.0 that a test may damage."""
    return make_vqa2(tmp_path / "official")


TINY = {
    "run_type": "train_val",
    "datasets": ["vqa2"],
    "processors": {
        "text": {"type": "bert_tokenizer", "params": {"vocabulary": "train", "max_length": 12}},
        "image": {"type": "image", "params": {"short_edge": 64, "long_edge": 96}},
        "answers": {"type": "answers", "params": {"min_occurrences": 1, "splits": ["train"]}},
    },
    "model_config": {
        "pixelbert": {
            "image_encoder": {"type": "resnet18", "params": {"max_pool": False}},
            "text_encoder": {
                "type": "bert",
                "params": {
                    "hidden_size": 32,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "intermediate_size": 64,
                    "max_position_embeddings": 16,
                    "initializer_range": 0.2,
                },
            },
        }
    },
    "optimizer": {"cnn": {"type": "sgd", "params": {}}, "transformer": {"type": "adamw", "params": {"lr": 1e-3}}},
    "evaluation": {"num_pictures": 0},  # matplotlib takes a third of such a run
    "training": {
        "batch_size": 8,
        "texts_per_image": 2,
        "max_updates": 4,
        "evaluation_interval": 2,
        "checkpoint_interval": 2,
        "log_interval": 1,
        "num_workers": 0,
    },
}


@pytest.fixture
def tiny_config(tmp_path, vqa2_root) -> Path:
    """A YAML that trains Pixel-BERT on the tiny VQA 2.0; runs are saved below tmp_path."""
    return write_config(tmp_path / "tiny.yaml", vqa2_root, tmp_path / "run")


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, vqa2_root) -> Path:
    """The folder of a run that `tiny_config` describes: four updates, checkpoints after 2 and 4; read only."""
    folder = tmp_path_factory.mktemp("tiny_run")
    assert cli.main([f"config={write_config(folder / 'tiny.yaml', vqa2_root, folder / 'run')}"]) == 0
    return share(folder / "run")


@pytest.fixture
def config_with_run(tiny_config, tiny_run, tmp_path) -> Path:
    """`tiny_config`, in whose folder a run lies already, which a test may change."""
    shutil.copytree(tiny_run, tmp_path / "run", symlinks=True)
    return tiny_config


def write_config(path: Path, data_dir: Path, save_dir: Path, **changes) -> Path:
    defaults = Path(__file__).parent.parent / "datasets/vqa2/defaults.yaml"
    content = {"includes": [str(defaults)], **TINY, "env": {"data_dir": str(data_dir), "save_dir": str(save_dir)}, **changes}
    path.write_text(yaml.safe_dump(content))
    return path
