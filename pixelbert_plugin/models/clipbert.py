"""Checkpoints of ClipBERT's image-text pre-training (Lei et al. 2021), and of zezeze97/pixelbert, which has its modules: the
nearest relatives of Pixel-BERT's pre-training on COCO and Visual Genome, by MLM and ITM, with ResNet-50 and 100 sampled pixels.

Names and conventions are from jayleicn/ClipBERT, src/modeling/{e2e_model,grid_feat,modeling,transformers}.py and the R-50-grid
YAML, and from zezeze97/pixelbert, src/modeling/{e2e_model,resnet50gcb_extra}.py, read in November 2026. The CNN is
detectron2's, of MSRA's conventions with fixed norms (encoders/cnn_formats.py), or the latter's own ResNet-50, which strides and
takes images alike.
"""

import logging
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint.weights import mentions, one_line, read_state_dict, report_names
from pixelbert_plugin.encoders.cnn_formats import FORMATS, IMAGENET_MEAN, IMAGENET_STD, CnnWeights, for_our_input, read_layout
from pixelbert_plugin.errors import UserError

logger = logging.getLogger(__name__)

MARK = "cnn.grid_encoder.0.weight"
CNN, BERT, VISUAL, HEADS = "cnn.feature.", "transformer.bert.", "transformer.bert.visual_embeddings.", "transformer.cls."
OWN_CNN = re.compile(r"cnn\.((?:conv1|bn1)\.|stage(?=[1-4]\.))")  # of zezeze97/pixelbert, where it is not detectron2's
OPTIONS = {  # of model_config.pixelbert, that repeat its network
    "image_encoder.params.stride_in_1x1": True,
    "image_encoder.params.norm": "frozen",
    "image_encoder.params.max_pool": False,  # the projection pools
    "projection": "conv3x3",
    "position_embedding": "2d",
    "max_grid_size": 100,
    "pixel_layer_norm": True,
    "pixel_layer_norm_eps": 1e-12,
    "pooler": True,
}
RENAMED = (  # the beginnings of names, theirs and ours
    ("cnn.grid_encoder.0.", "projection.convolution."),
    (f"{VISUAL}row_position_embeddings.weight", "row_embedding"),
    (f"{VISUAL}col_position_embeddings.weight", "column_embedding"),
    (f"{VISUAL}LayerNorm.", "pixel_norm."),
    (f"{BERT}embeddings.", "text_encoder.bert.embeddings."),
    (f"{BERT}encoder.", "text_encoder.bert.encoder."),
    (f"{BERT}pooler.dense.", "pooler."),
    (f"{HEADS}predictions.transform.dense.", "heads.mlm.transform.0."),
    (f"{HEADS}predictions.transform.LayerNorm.", "heads.mlm.transform.2."),
    (f"{HEADS}predictions.bias", "heads.mlm.bias"),
    (f"{HEADS}seq_relationship.", "heads.itm.classifier."),
)
S_V = f"{VISUAL}token_type_embeddings.weight"  # 1 D: the paper's s_v


@registry.register_checkpoint_reader("clipbert")
class ClipBertCheckpoint:
    """A state dict of ClipBERT's, pre-trained on images and texts, or of the re-implementation with its modules."""

    def recognises(self, path: Path) -> bool:
        return mentions(path, MARK)

    def read(self, path: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        try:
            state = {name.removeprefix("module."): value for name, value in read_state_dict(path).items()}
            cnn, is_own = _cnn(state)
            found, unused = _transformer(state)
        except (ValueError, KeyError) as error:
            raise UserError(f"{key}={str(path)!r}: not a checkpoint of ClipBERT's ({one_line(error)})") from error
        report_names(f"{key}={path}", {"of no use here, as expected": [*cnn.left_out, *unused]})
        tensors = for_our_input(cnn.tensors, FORMATS["msra"])
        found |= {f"image_encoder.resnet.{name}": value for name, value in tensors.items()}
        options = {key: value for key, value in OPTIONS.items() if not (is_own and key.endswith(".norm"))}
        return found, {"model_options": options, "image_options": {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}}


def _cnn(state: dict[str, Tensor]) -> tuple[CnnWeights, bool]:
    """The CNN, and whether it is the re-implementation's own ResNet-50, whose norms have statistics and are trained.

    Both have MSRA's conventions. Raises ValueError for another network.
    """
    detectron2s = {name: value for name, value in state.items() if name.startswith(CNN)}
    if detectron2s:
        return read_layout(detectron2s), False
    if any("context_block" in name for name in state):
        raise ValueError("its CNN has GC attention, which is not built here")
    own = {OWN_CNN.sub(lambda found: found[1].replace("stage", "layer"), name): state[name] for name in state}
    return read_layout({name: value for name, value in own.items() if name.startswith(("conv1.", "bn1.", "layer"))}), True


def _transformer(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """All but the CNN under our names, and the names that have no place here. Raises KeyError where s_v is missing."""
    found, unused = {"pixel_embedding": state[S_V][0].float()}, []
    for name, value in state.items():
        if name.startswith(CNN) or OWN_CNN.match(name) or name == S_V:
            continue
        ours = next((f"{to}{name.removeprefix(start)}" for start, to in RENAMED if name.startswith(start)), None)
        if ours is None or re.search(r"position_ids$", name):
            unused.append(name)
        else:
            found[ours] = value.float()
    return found, unused
