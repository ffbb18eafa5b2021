"""Image-text retrieval (paper, section 4.2). B samples, each its image with R / B = 1 + n captions, the true one first."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pixelbert_plugin import registry
from pixelbert_plugin.errors import NonFiniteLossError
from pixelbert_plugin.interfaces import MatchingTask
from pixelbert_plugin.metrics.recall import fold_metrics, retrieval_metrics
from pixelbert_plugin.tasks.log_odds import log_odds
from pixelbert_plugin.tasks.options import RetrievalConfig
from pixelbert_plugin.types import Batch, ModelOutput

logger = logging.getLogger(__name__)


@registry.register_task("retrieval")
class RetrievalTask(MatchingTask):
    """Retrieval of captions by image and of images by caption; every pair of a split is scored.

    The score is the matching head's logit for a true pair less the one for a false pair, so that fine-tuning starts from
    what pre-training learned of matching.
    """

    Config = RetrievalConfig
    main_metric = "mean_r@1"
    processors = ("text", "image")
    images_per_sample = 1
    reads_logits_only = True

    def __init__(self, config: RetrievalConfig, processors: dict[str, Any]):
        self.config = config
        self.num_negatives = config.num_negatives
        self.max_val_images, self.max_test_images = config.max_val_images, config.max_test_images
        # a backward pass costs two forward ones: all without gradient and the chosen again must cost less than all with it
        if 3 * (1 + config.num_hardest) < 2 * (1 + config.num_negatives):
            self.chosen = self._chosen

    def heads(self) -> dict[str, int]:
        return {"itm": 2}

    def asked(self) -> dict[str, Callable[[dict[str, Tensor]], Tensor]]:
        return {"match": self.scores}

    def prepare(self, batch: Batch, seeds: list[int]) -> None:
        """The true caption is each sample's first: no targets."""

    def scores(self, logits: dict[str, Tensor]) -> Tensor:
        """Q float32, higher for better matches: the log-odds of a true pair."""
        return log_odds(logits["itm"])

    def _chosen(self, logits: dict[str, Tensor], batch: Batch) -> Tensor:
        """Each image's true caption and its hardest ones."""
        scores_BT = self.scores(logits).view(len(batch), -1)
        batch.targets["hardest"] = hardest_BH = scores_BT[:, 1:].topk(self.config.num_hardest, dim=1).indices
        columns_BC = F.pad(hardest_BH.sort(dim=1).values + 1, (1, 0))
        first_B = torch.arange(len(batch), device=columns_BC.device) * scores_BT.shape[1]
        return (columns_BC + first_B[:, None]).flatten()

    def loss(self, output: ModelOutput, batch: Batch) -> dict[str, Tensor]:
        """Softmax cross-entropy of the true caption among all; of the negatives only the hardest send gradient."""
        scores_BT = self.scores(output.logits).view(len(batch), -1)
        negatives_BN = scores_BT[:, 1:]
        hardest_BH = batch.targets.get("hardest")  # as they were chosen: the last digits may differ since
        if hardest_BH is None:
            hardest_BH = negatives_BN.topk(self.config.num_hardest, dim=1).indices
        # the others count in the sum, as constants
        negatives_BN = negatives_BN.detach().scatter(1, hardest_BH, negatives_BN.gather(1, hardest_BH))
        scores_BT = F.pad(negatives_BN, (1, 0)) + F.pad(scores_BT[:, :1], (0, negatives_BN.shape[1]))
        return {"retrieval": (-scores_BT.log_softmax(1)[:, 0] * batch.weights).sum()}

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        return {"retrieval": batch.weights.sum()}

    def matrix_metrics(self, scores_IT: np.ndarray, image_of_text_T: np.ndarray) -> dict[str, float]:
        """Recalls and ranks over all pairs, and over folds as `1000_images_…` where `fold_images` asks for them."""
        if not np.isfinite(scores_IT).all():
            name = registry.place_of(self.config).name
            raise NonFiniteLossError(f"{name}: a score is not finite; train with lower learning rates, or evaluate in fp32")
        metrics = retrieval_metrics(scores_IT, image_of_text_T)
        size, images = self.config.fold_images, len(scores_IT)
        if size is not None and images > size:
            if images % size:
                key = f"{registry.key_of(self.config, 'fold_images')}={size}"
                logger.warning("%s: %d images do not divide into such folds; metrics by folds are left out", key, images)
            else:
                folds = fold_metrics(scores_IT, image_of_text_T, size)
                metrics |= {f"{size}_images_{name}": value for name, value in folds.items()}
        return metrics
