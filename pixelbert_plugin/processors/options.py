"""The options of the processors here, by themselves, so that they are read and checked without torch."""

from dataclasses import dataclass, field

from pixelbert_plugin.registry.schema import FilePath, require

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MAX_PIXELS = 178_956_970  # beyond which Pillow takes a file for a decompression bomb; 0.5 GB as RGB


@dataclass(kw_only=True)
class WordPieceTokenizerConfig:
    vocabulary: FilePath = "train"  # hub name (bert-base-uncased), folder with tokenizer.json or vocab.txt, or train (learned)
    max_length: int = 64  # tokens, [CLS] and [SEP] included; longer texts are cut and counted
    vocab_size: int = 30522  # largest vocabulary that `vocabulary: train` learns (BERT's size)
    lowercase: bool = True  # BERT-uncased's; for vocabulary train and vocab.txt

    def check(self) -> None:
        require(self, "max_length", low=3)  # [CLS], one word and [SEP]
        require(self, "vocab_size", low=len(SPECIAL))


@dataclass(kw_only=True)
class ImageConfig:
    short_edge: int = 800  # pixels of the shorter side after resizing (paper: 800 for ResNet-50, 600 for ResNeXt-152)
    long_edge: int = 1333  # largest longer side in pixels (paper: 1333 and 1000)
    mean: list[float] = field(default_factory=lambda: [0.485, 0.456, 0.406])  # of RGB in 0…1 (ImageNet, torchvision's)
    std: list[float] = field(default_factory=lambda: [0.229, 0.224, 0.225])  # of RGB in 0…1 (ImageNet, torchvision's)
    horizontal_flip: float = 0.0  # probability in training; 0: the paper names none, and left/right are in questions
    min_crop: float = 1.0  # training crops a random window with at least this share of each side; 1: no crop
    color_jitter: float = 0.0  # training scales brightness, contrast and saturation by up to 1 ± this; 0: none
    max_pixels: int = MAX_PIXELS  # a file of more, width × height, is a bad image (Pillow's limit: 0.5 GB as RGB)

    def check(self) -> None:
        require(self, "short_edge", "max_pixels", low=1)
        require(self, "std", above=0)
        require(self, "horizontal_flip", "color_jitter", low=0, high=1)
        require(self, "min_crop", above=0, high=1)
        if self.short_edge > self.long_edge:
            raise ValueError("short_edge: must be at most long_edge")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != 3:
                raise ValueError(f"{name}: needs three values, for red, green and blue")


@dataclass(kw_only=True)
class AnswersConfig:
    min_occurrences: int = 9  # answers seen less often as a question's main answer are left out (paper: 9, giving 3129)
    splits: list[str] = field(default_factory=lambda: ["train"])  # where occurrences are counted (paper: train and val)
    vocabulary: FilePath | None = None  # instead of counting: a text file, one answer a line, or a JSON list or mapping

    def check(self) -> None:
        require(self, "min_occurrences", low=1)
