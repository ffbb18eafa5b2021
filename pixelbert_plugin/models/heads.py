"""Heads on the transformer's output. Q sequences, D hidden size, V vocabulary.

A task names the heads it needs and their number of outputs; they live in the model, so that checkpoints hold them.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class AnswerHead(nn.Module):
    """VQA, and any head that is not listed below: an MLP on [CLS] (paper, section 4.1).

    Its width, GELU and layer norm are our choice. in: QD; out: Q answers.
    """

    def __init__(self, hidden_size: int, num_outputs: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(hidden_size, 2 * hidden_size),
            nn.GELU(),
            nn.LayerNorm(2 * hidden_size),
            nn.Linear(2 * hidden_size, num_outputs),
        )

    def forward(self, cls_QD: Tensor) -> Tensor:
        return self.layers(cls_QD)


class MaskedLanguageHead(nn.Module):
    """MLM: BERT's transform, then the word embeddings as output weights (Devlin et al. 2019). in: MD, at M masked words.

    A text encoder with pre-trained weights brings this head's too (encoders/bert.py), so its names are part of a contract.
    """

    def __init__(self, hidden_size: int, num_outputs: int):
        super().__init__()
        norm = nn.LayerNorm(hidden_size, eps=1e-12)  # BERT's
        self.transform = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.GELU(), norm)
        self.bias = nn.Parameter(Tensor(num_outputs).zero_())

    def forward(self, words_MD: Tensor, word_embeddings_VD: Tensor) -> Tensor:
        return F.linear(self.transform(words_MD), word_embeddings_VD, self.bias)


class MatchingHead(nn.Module):
    """ITM: does this text belong to this image? (paper, section 3.3.2). in: QD; out: Q 2, second logit for a true pair."""

    def __init__(self, hidden_size: int, num_outputs: int = 2):
        super().__init__()
        self.classifier = nn.Linear(hidden_size, num_outputs)

    def forward(self, cls_QD: Tensor) -> Tensor:
        # float32 whatever the weights' type: retrieval ranks by these, and the digits of half types would tie many pairs.
        # Products and a sum, since neither torch's autocast nor Apex, which patches `linear`, casts those down
        products_Q2D = cls_QD.float()[:, None] * self.classifier.weight.float()
        return products_Q2D.sum(2) + self.classifier.bias.float()


class PairHead(nn.Module):
    """NLVR2 "pair": the [CLS] vectors of one statement with each of two images, concatenated (paper); an MLP of our choice.

    in: 2B D; out: B 2.
    """

    def __init__(self, hidden_size: int, num_outputs: int = 2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * hidden_size, hidden_size),
            nn.GELU(),
            nn.LayerNorm(hidden_size),
            nn.Linear(hidden_size, num_outputs),
        )

    def forward(self, cls_QD: Tensor) -> Tensor:
        return self.layers(cls_QD.reshape(cls_QD.shape[0] // 2, -1))


class ImageAnswersHead(nn.Module):
    """Training aid for VQA: which answers belong to an image, from the mean of the CNN's pixels. in: IC; out: I answers."""

    def __init__(self, channels: int, num_outputs: int):
        super().__init__()
        self.classifier = nn.Linear(channels, num_outputs)

    def forward(self, pixels_IPC: Tensor, mask_IP: Tensor) -> Tensor:
        mean_IC = pixels_IPC.float().sum(1) / mask_IP.sum(1, keepdim=True)  # pixels are 0 at padding; a float16 sum overflows
        return self.classifier(mean_IC.to(pixels_IPC.dtype))


HEADS: dict[str, type[nn.Module]] = {  # a plugin's task may name others, which are AnswerHeads
    "answers": AnswerHead,
    "mlm": MaskedLanguageHead,
    "itm": MatchingHead,
    "pair": PairHead,
    "image_answers": ImageAnswersHead,
}
