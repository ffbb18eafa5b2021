"""Pixel-BERT as it is written in an afternoon: torchvision's ResNet-50, transformers' BertModel, one image to each pair.

It is what the programs here measure this package against, so it computes the same (`load_ours` gives it our weights, and they
compare outputs): images padded to the batch's largest and no masks in the CNN, so images must be of one size; the logits of
masked words are computed at every word, as transformers' BertForMaskedLM does, and the loss ignores the rest.

Q pairs, L tokens, H W image size, P pixels, D hidden size.
"""

import torch
import torch.nn.functional as F
import torchvision
import transformers
from torch import Tensor, nn

VOCABULARY = 30522


class NaivePixelBert(nn.Module):
    """One forward pass for Q pairs of a text and an image, each with its own image."""

    def __init__(self, heads: dict[str, int], num_sampled_pixels: int | None = None, vocab_size: int = VOCABULARY):
        super().__init__()
        cnn = torchvision.models.resnet50()
        self.cnn = nn.Sequential(*list(cnn.children())[:-2])
        self.bert = transformers.BertModel(
            transformers.BertConfig(vocab_size=vocab_size, attn_implementation="sdpa"), add_pooling_layer=False
        )
        hidden = self.bert.config.hidden_size
        self.projection = nn.Linear(2048, hidden)
        self.pixel_embedding = nn.Parameter(torch.zeros(hidden))
        self.num_sampled_pixels = num_sampled_pixels
        self.heads = nn.ModuleDict()
        for name, size in heads.items():
            if name == "mlm":
                transform = [nn.Linear(hidden, hidden), nn.GELU(), nn.LayerNorm(hidden, eps=1e-12)]
                self.heads[name] = nn.Sequential(*transform)
                self.mlm_bias = nn.Parameter(torch.zeros(size))
            elif name == "itm":
                self.heads[name] = nn.Linear(hidden, size)
            else:
                middle = [nn.Linear(hidden, 2 * hidden), nn.GELU(), nn.LayerNorm(2 * hidden)]
                self.heads[name] = nn.Sequential(*middle, nn.Linear(2 * hidden, size))

    def pixels(self, images_Q3HW: Tensor) -> Tensor:
        """Q P D."""
        values = F.max_pool2d(self.cnn(images_Q3HW), 2)
        pixels_QPC = values.flatten(2).transpose(1, 2)
        if self.training and self.num_sampled_pixels is not None:
            kept = torch.randperm(pixels_QPC.shape[1])[: self.num_sampled_pixels]
            pixels_QPC = pixels_QPC[:, kept]
        return self.projection(pixels_QPC) + self.pixel_embedding

    def fuse(self, input_ids_QL: Tensor, text_mask_QL: Tensor, pixels_QPD: Tensor) -> Tensor:
        """Q L+P D: the last hidden states."""
        hidden = torch.cat([self.bert.embeddings(input_ids=input_ids_QL), pixels_QPD], dim=1)
        ones = torch.ones(pixels_QPD.shape[:2], dtype=torch.bool, device=text_mask_QL.device)
        mask = torch.cat([text_mask_QL, ones], dim=1)[:, None, None]
        return self.bert.encoder(hidden, attention_mask=mask).last_hidden_state

    def forward(self, input_ids_QL: Tensor, text_mask_QL: Tensor, images_Q3HW: Tensor) -> dict[str, Tensor]:
        """By head, its logits: "mlm" Q L V, others Q outputs."""
        hidden = self.fuse(input_ids_QL, text_mask_QL, self.pixels(images_Q3HW))
        return self.logits(hidden, input_ids_QL.shape[1])

    def logits(self, hidden: Tensor, num_tokens: int) -> dict[str, Tensor]:
        found = {}
        for name, head in self.heads.items():
            if name == "mlm":
                words = head(hidden[:, :num_tokens])
                found[name] = F.linear(words, self.bert.embeddings.word_embeddings.weight, self.mlm_bias)
            else:
                found[name] = head(hidden[:, 0])
        return found

    @torch.no_grad()
    def load_ours(self, ours: nn.Module) -> None:
        """Take the weights of a `pixelbert` of the same heads."""
        cnn = ours.image_encoder.resnet
        parts = [cnn.conv1, cnn.bn1, cnn.relu, cnn.maxpool, cnn.layer1, cnn.layer2, cnn.layer3, cnn.layer4]
        for own, part in zip(self.cnn, parts, strict=True):
            own.load_state_dict(part.state_dict(), strict=False)
        self.bert.load_state_dict(ours.text_encoder.bert.state_dict())
        self.projection.load_state_dict(ours.projection.state_dict())
        self.pixel_embedding.copy_(ours.pixel_embedding)
        for name, head in self.heads.items():
            state = ours.heads[name].state_dict()
            if name == "mlm":
                self.mlm_bias.copy_(state.pop("bias"))
            head.load_state_dict({key.partition(".")[2]: value for key, value in state.items()})


def optimizers(model: NaivePixelBert) -> list[torch.optim.Optimizer]:
    """The paper's two, as torch has them."""
    cnn = list(model.cnn.parameters())
    others = [parameter for name, parameter in model.named_parameters() if not name.startswith("cnn.")]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=1e-4, weight_decay=1e-2)]
    if any(parameter.requires_grad for parameter in cnn):
        found.append(torch.optim.SGD(cnn, lr=1e-2, momentum=0.9, weight_decay=5e-4))
    return found
