"""The options of the tasks here, by themselves, so that they are read and checked without torch."""

from dataclasses import dataclass

from pixelbert_plugin.registry.schema import require


@dataclass(kw_only=True)
class PretrainConfig:
    mlm: bool = True  # masked language modelling, on matched pairs only (paper)
    itm: bool = True  # image-text matching: one pair of an image with another image's text to each true pair (paper)
    mask_probability: float = 0.15  # share of words that MLM chooses (paper); of them 80 % masked, 10 % replaced (BERT)
    whole_words: bool = False  # choose all pieces of a word together

    def check(self) -> None:
        require(self, "mask_probability", above=0, high=1)
        if not self.mlm and not self.itm:
            raise ValueError("itm: false, and mlm too; at least one must be learned")


@dataclass(kw_only=True)
class VqaConfig:
    metric: str = "vqa_accuracy"  # registered metric that scores a predicted answer against the annotators' (official rule)
    image_answers_weight: float = 0.0  # weight of the loss that trains the CNN directly (see VqaTask); 0 as in the paper

    def check(self) -> None:
        require(self, "image_answers_weight", low=0)


@dataclass(kw_only=True)
class RetrievalConfig:
    num_negatives: int = 20  # random captions of other images beside each true one (paper)
    num_hardest: int = 5  # of them, those with the highest loss that send gradient (paper)
    fold_images: int | None = None  # images per fold for the metrics by folds (COCO: 1000). None: no folds
    max_val_images: int | None = None  # a validation while training scores the split's first images only. None: all of them
    max_test_images: int | None = None  # so does the final evaluation of val or test. None: all of them (paper)

    def check(self) -> None:
        require(self, "num_negatives", "num_hardest", "fold_images", "max_val_images", "max_test_images", low=1)
        if self.num_hardest > self.num_negatives:
            raise ValueError("num_hardest: must be at most num_negatives")
