"""What `pixelbert-predict` is told, by itself, so that it is read and checked without torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pixelbert_plugin.registry.schema import ConfigError, FilePath, require

Way = Literal["answer", "match", "search", "compare", "fill"]
FORMS: dict[str, tuple[str, ...]] = {  # by what is asked, the keys of one question
    "answer": ("image", "question"),
    "match": ("image", "texts"),
    "search": ("images", "text"),
    "compare": ("left", "right", "statement"),
    "fill": ("image", "text"),
}
COLUMNS = FORMS | {"match": ("image", "text"), "search": ("text",)}  # of a file of questions
KEYS = sorted({key for keys in FORMS.values() for key in keys})
INPUTS, OUTPUTS = (".csv", ".jsonl", ".json"), (".jsonl", ".csv")


@dataclass(kw_only=True)
class PredictConfig:
    checkpoint: FilePath = (
        ""  # a run's or checkpoint's folder, an exported file, a name of the hub. "": the package's own model
    )
    image: FilePath | None = None  # the image that is asked about
    images: FilePath | None = None  # the folder that is searched; with `input`, the folder that its images' paths begin in
    question: str | None = None  # about the image (VQA)
    text: str | None = None  # with images: what is searched for; with image: a text with [MASK]
    texts: str | list[str] | None = None  # do they belong to the image? A text, a list of them, or a file of one a line
    left: FilePath | None = None  # the images of a statement about two (NLVR2)
    right: FilePath | None = None  # the other one
    statement: str | None = None  # is it true of left and right?
    input: FilePath | None = None  # a file of questions, a row each: .csv, .jsonl or .json, its columns named as the keys above
    output: FilePath | None = None  # where its answers go: .jsonl or .csv
    overwrite: bool = False  # put the answers in the place of what `output` holds already, or `explain`
    explain: FilePath | None = None  # a picture to write that shows where the answer comes from: .png, .jpg or .webp
    method: str | None = None  # of explain, by its registered name. None: the best known (docs/explanations.md)
    answer: str | None = None  # of explain: the answer that is explained, as the model spells it. None: the most probable one
    ask: Way | None = None  # what rows ask, where their columns and the checkpoint leave it open. None: as these say
    top_k: int = 5  # how many answers, words or images are given, the best first
    format: Literal["table", "json"] = "table"  # what is printed
    device: str = "auto"  # cpu, cuda, cuda:1, …; auto: cuda where there is one
    precision: str = "fp32"  # what the model computes in, by its registered name: bf16 takes less time
    batch_size: int = 32  # pairs of a text with its images that go through the model at once
    user_dir: FilePath | None = None  # the plugin of the run, where it was moved. None: where the run had it

    def check(self) -> None:
        require(self, "top_k", "batch_size", low=1)
        for name, suffixes in (("input", INPUTS), ("output", OUTPUTS)):
            value = getattr(self, name)
            if value is not None and Path(value).suffix.lower() not in suffixes:
                raise ValueError(f"{name}: must be a file that ends in {', '.join(suffixes)}")
        for name in ("method", "answer"):
            if getattr(self, name) is not None and self.explain is None:
                raise ValueError(f"{name}: says what explain=PICTURE shows, which is not set")
        if self.texts is not None and not self.texts:
            raise ValueError("texts: is empty; give one or more")

    def way(self) -> Way:
        """What is asked in a question of keys. Raises ConfigError where they are not those of one question."""
        given = [key for key in KEYS if getattr(self, key) is not None]
        if self.output is not None:
            raise ConfigError("output", "is for a file of questions; name it by input=FILE")
        for name, keys in FORMS.items():
            if set(given) == set(keys) and self.ask in (None, name):
                if name == "search" and self.explain is not None:
                    raise ConfigError("explain", "is for an answer about one image, or two; a search has none")
                return name  # type: ignore[return-value]  # the keys of FORMS are those of Way
        forms = "; ".join(" ".join(f"{key}=…" for key in keys) for keys in FORMS.values())
        told = f"given are {' and '.join(given)}" if given else "none is given"
        if self.ask is not None:
            raise ConfigError("ask", f"{self.ask!r} needs {' and '.join(FORMS[self.ask])}; {told}")
        raise ConfigError("", f"a question has the keys {forms}, or is in a file: input=FILE output=FILE; {told}")

    def files(self) -> tuple[Path, Path]:
        """The files of questions and answers. Raises ConfigError."""
        given = [key for key in KEYS if getattr(self, key) is not None and key != "images"]
        if given:
            raise ConfigError(given[0], f"is in the rows of input={self.input!r}; leave it out")
        if self.explain is not None:
            raise ConfigError("explain", "is for one question, not for a file of them (input)")
        if self.output is None or self.input is None:
            raise ConfigError("output", "is not set; name the file for the answers, such as output=answers.jsonl")
        source, target = Path(self.input), Path(self.output)
        if not source.is_file():
            raise ConfigError("input", f"{self.input!r}: {'is a folder' if source.is_dir() else 'no such file'}")
        if target.is_dir() or not target.parent.is_dir():
            what = "is a folder" if target.is_dir() else f"there is no folder {str(target.parent)!r}"
            raise ConfigError("output", f"{self.output!r}: {what}; name a file in a folder that is there")
        if self.images is not None and not Path(self.images).is_dir():
            raise ConfigError("images", f"{self.images!r}: no such folder")
        if source.resolve() == target.resolve():
            raise ConfigError("output", f"{self.output!r}: is the input; name another file")
        return source, target
