"""What rooms share: a small model for each task, its weights random, and pictures of several sizes."""

from pathlib import Path

import pytest
import torch
from conftest import COLORS, TINY, draw_image, share

from pixelbert_plugin.asking.loaded_model import LoadedModel
from pixelbert_plugin.build import build_model, build_processors, build_task
from pixelbert_plugin.config.options import ProcessorsConfig, RunConfig
from pixelbert_plugin.registry.schema import Component

WORDS = [
    "is the disc red or blue",
    "a green disc on a table",
    "what color is it",
    "how many discs are there",
    "red blue green yes no",
]
ANSWERS = ["yes", "no", "red", "blue", "green", "1", "2"]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> list[Path]:
    """Seven, of three sizes; read only."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(7):
        size = [(64, 48), (48, 64), (60, 60)][number % 3]
        draw_image(folder / f"{number}.png", list(COLORS)[number % 3], number, size)
    share(folder)
    return sorted(folder.iterdir())


class Models(dict[str, LoadedModel]):
    """By task, each made when it is first asked for."""

    def __missing__(self, task: str) -> LoadedModel:
        return self.setdefault(task, make(task))


@pytest.fixture(scope="session")
def models() -> Models:
    return Models()


def make(task: str, **options) -> LoadedModel:
    config = RunConfig(task=task, task_config={task: options}, model_config=TINY["model_config"], datasets=["vqa2"])
    parts = TINY["processors"] | {"image": {"type": "image", "params": {"short_edge": 32, "long_edge": 48}}}
    config.processors = ProcessorsConfig(**{role: Component(**part) for role, part in parts.items()})
    processors = build_processors(config.processors, ("text", "image", "answers"))
    processors["text"].fit(WORDS * 2)
    processors["answers"].fit([answer for place, answer in enumerate(reversed(ANSWERS), 1) for _ in range(place)])
    built = build_task(config.chosen_task, processors)
    model = build_model(config.chosen_model, built, processors, seed=1).eval()
    generator = torch.Generator().manual_seed(5)
    for head in model.heads.parameters():  # so that answers differ by more than rounding
        torch.nn.init.normal_(head, std=0.2, generator=generator)
    kept = {role: processors[role] for role in built.processors}
    return LoadedModel(model, config, kept, built, torch.device("cpu"), Path(f"save/{task}"))
