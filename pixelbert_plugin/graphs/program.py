"""The model as torch.export has it: plain tensors in, logits out, of any number of texts, images' sizes and texts' lengths.

R texts, L tokens, N images to each text, H W the padded height and width. in: input_ids R L int64, attention_mask R L int64,
pixel_values R 3 H W float32 (N = 1) or R N 3 H W, pixel_mask R H W or R N H W int64; out: by head, its logits.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pixelbert_plugin.checkpoint.weights import one_line
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.models.inputs import batch_of
from pixelbert_plugin.models.pixelbert import PixelBert

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel

INPUTS = ("input_ids", "attention_mask", "pixel_values", "pixel_mask")
EXAMPLE = (3, 7, 256, 320)  # texts, tokens, height and width that it is traced with; no two alike, none of them 0 or 1


class Computation(nn.Module):
    """The model called with tensors by name, for tracing. `images_per_text`: N."""

    def __init__(self, model: nn.Module, images_per_text: int):
        super().__init__()
        self.model, self.images_per_text = model, images_per_text

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor, pixel_mask: Tensor) -> dict[str, Tensor]:
        """Of the head "mlm" R L V, at every word; of "image_answers", which serves training alone, nothing."""
        texts, tokens = input_ids.shape
        index_RN = torch.arange(texts * self.images_per_text).view(texts, self.images_per_text)
        batch = batch_of(input_ids, attention_mask, pixel_values, pixel_mask, index_RN)
        batch.targets["mlm_positions"] = torch.arange(texts * tokens)
        logits = dict(self.model(batch).logits)
        logits.pop("image_answers", None)
        if "mlm" in logits:
            logits["mlm"] = logits["mlm"].view(texts, tokens, -1)
        return logits


def least_side(loaded: "LoadedModel") -> int:
    """Pixels that the padded height and width have at least: for two rows and columns of features, which the graph counts on.
    Each pooling of 2 × 2 halves those at stride 32."""
    model: Any = loaded.model
    is_pooled = getattr(model.image_encoder, "max_pool", False), not isinstance(model.projection, nn.Linear)
    return 32 * (2 ** (1 + sum(is_pooled)) - 1) + 1


def example(loaded: "LoadedModel", texts: int, tokens: int, height: int, width: int) -> tuple[Tensor, ...]:
    """Random inputs of these sizes, with padding of texts and images."""
    images = cast(int, loaded.task.images_per_sample)
    lead = (texts,) if images == 1 else (texts, images)
    draw = torch.Generator().manual_seed(0)
    input_ids = torch.randint(0, loaded.processors["text"].vocab_size, (texts, tokens), generator=draw)
    attention_mask, pixel_mask = torch.ones_like(input_ids), torch.ones(*lead, height, width, dtype=torch.int64)
    attention_mask[-1, -max(1, tokens // 3) :] = 0
    pixel_mask[-1, ..., -max(1, height // 3) :, :] = 0
    pixel_mask[0, ..., :, -max(1, width // 4) :] = 0
    pixel_values = torch.randn(*lead, 3, height, width, generator=draw) * pixel_mask.unsqueeze(-3)
    return input_ids, attention_mask, pixel_values, pixel_mask


def dimensions(loaded: "LoadedModel") -> dict[str, dict[int, Any]]:
    """By input, which of its dimensions may be of any size, and within which limits."""
    longest = loaded.processors["text"].max_length
    text, token = Dim("texts"), Dim("tokens", max=longest) if longest else Dim("tokens")
    height, width = (Dim(name, min=least_side(loaded)) for name in ("height", "width"))
    first = 0 if loaded.task.images_per_sample == 1 else 1  # before an image's own dimensions
    return {
        "input_ids": {0: text, 1: token},
        "attention_mask": {0: text, 1: token},
        "pixel_values": {0: text, first + 2: height, first + 3: width},
        "pixel_mask": {0: text, first + 1: height, first + 2: width},
    }


@torch.no_grad()
def trace(loaded: "LoadedModel", key: str) -> ExportedProgram:
    """The model's computation. Raises UserError, naming `key`, for a model that cannot be traced."""
    if not isinstance(loaded.model, PixelBert):
        raise UserError(f"{key}: the model {loaded.config.model!r} is a plugin's; a graph is made of pixelbert alone")
    if loaded.task.images_per_sample is None:
        raise UserError(f"{key}: the task {loaded.config.task!r} has any number of images to a text; a graph needs one number")
    texts, tokens, height, width = EXAMPLE
    longest = loaded.processors["text"].max_length
    inputs = example(loaded, texts, min(tokens, longest) if longest else tokens, height, width)
    computation = Computation(loaded.model, loaded.task.images_per_sample).eval()
    try:
        return torch.export.export(computation, inputs, dynamic_shapes=dimensions(loaded), strict=False)
    except UserError:
        raise
    except Exception as error:  # torch's, of whatever an encoder does with the values of a tensor
        encoder = getattr(getattr(loaded.config.chosen_model.params, "image_encoder", None), "type", loaded.config.model)
        raise UserError(
            f"{key}: torch.export cannot trace this model, with the image encoder {encoder!r} ({one_line(error)}); "
            "--format hf or safetensors writes it"
        ) from error
