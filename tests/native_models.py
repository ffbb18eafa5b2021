"""Native models of every task with random weights, as `load` gives them: for what wraps or exports one."""

from pathlib import Path

import torch
from conftest import TINY, write_config

from pixelbert_plugin import config as configuration
from pixelbert_plugin import registry
from pixelbert_plugin.build import build_model, build_processors, build_task
from pixelbert_plugin.loading import LoadedModel
from pixelbert_plugin.models.inputs import batch_of

TEXTS = ["is the disc red?", "what color is the disc to the left?", "there are two green discs", "a disc"]
ANSWERS = ["yes", "no", "red", "T-shirt", "blue and green"]

SIZES = [(1, 4, 65, 97), (2, 12, 96, 40), (5, 3, 160, 131)]  # of a graph's inputs: texts, tokens, height and width


def native(task: str, folder: Path, model: dict | None = None, **task_options) -> LoadedModel:
    """`model`: options of model_config.pixelbert beside the tiny ones."""
    options = {**TINY["model_config"]["pixelbert"], **(model or {})}
    changes = {
        "task": task,
        "model_config": {"pixelbert": options},
        "task_config": {task: task_options} if task_options else {},
    }
    config = configuration.resolve(write_config(folder / f"{task}.yaml", folder, folder / "run", **changes))
    processors = build_processors(config.processors, registry.get("task", task, "task").processors)
    processors["text"].fit(TEXTS * 2)
    if "answers" in processors:
        processors["answers"].fit(ANSWERS)
    built = build_task(config.chosen_task, processors)
    model = build_model(config.chosen_model, built, processors, seed=3)
    draw = torch.Generator().manual_seed(5)
    for name, buffer in model.named_buffers():  # so that norms matter
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1, generator=draw)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5, generator=draw)
    numbers = registry.build("precision", "fp32", None, "precision", device=torch.device("cpu"))
    return LoadedModel(model.eval(), config, processors, built, torch.device("cpu"), folder, numbers)


@torch.no_grad()
def native_logits(loaded: LoadedModel, input_ids, attention_mask, pixel_values, pixel_mask) -> dict[str, torch.Tensor]:
    """By head, what the model gives for a graph's inputs."""
    batch = batch_of(input_ids, attention_mask, pixel_values, pixel_mask)
    batch.targets["mlm_positions"] = torch.arange(input_ids.numel())
    logits = dict(loaded.model(batch).logits)
    logits.pop("image_answers", None)
    if "mlm" in logits:
        logits["mlm"] = logits["mlm"].unflatten(0, input_ids.shape)
    return logits
