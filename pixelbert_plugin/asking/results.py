"""What a loaded model answers. All are frozen and hold plain values; probabilities are in 0…1."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One answer to a question."""

    text: str  # as annotators write it most often
    probability: float  # a sigmoid of its own, as the loss of VQA has it: those of several answers need not add up to 1


@dataclass(frozen=True)
class Answers:
    """The answers to a question about an image."""

    question: str
    answers: tuple[Answer, ...]  # the most probable first

    @property
    def best(self) -> Answer:
        """The most probable one."""
        return self.answers[0]


@dataclass(frozen=True)
class Match:
    """How well a text belongs to an image."""

    text: str
    probability: float  # that they belong together: the softmax of the matching head (ITM), for this pair by itself
    score: float  # its log-odds, by which retrieval ranks: they go on where probabilities are 0 or 1 but for rounding


@dataclass(frozen=True)
class Found:
    """One image that a search has found."""

    image: str  # its path; of an image in memory "image 3", by its place in the list
    index: int  # its place in what was searched, counted from 0
    probability: float  # that it belongs to the text: as Match's
    score: float  # as Match's


@dataclass(frozen=True)
class Unreadable:
    """An image that could not be read, and was left out of a search."""

    image: str  # as Found's
    reason: str


@dataclass(frozen=True)
class SearchResults:
    """The images that belong to a text best."""

    text: str
    found: tuple[Found, ...]  # the best first
    unreadable: tuple[Unreadable, ...] = ()  # images that were left out

    @property
    def best(self) -> Found:
        """The one that belongs to the text best."""
        return self.found[0]


@dataclass(frozen=True)
class Comparison:
    """Whether a statement about two images is true."""

    statement: str
    probability: float  # that it is true: the softmax of the two labels

    @property
    def label(self) -> str:
        """The more probable label, as NLVR2 writes them: "True" or "False"."""
        return "True" if self.probability > 0.5 else "False"


@dataclass(frozen=True)
class Filled:
    """One word in the place of a [MASK]."""

    word: str  # of the vocabulary; one that begins with ## is joined to what stands before it
    probability: float  # of the softmax over the whole vocabulary, as the loss of masked language modelling has it
    text: str  # the text with the word put in; other [MASK]s stay


@dataclass(frozen=True)
class Fillings:
    """The words for the [MASK]s of a text, each [MASK] by itself."""

    text: str  # as it was given
    masks: tuple[tuple[Filled, ...], ...]  # for each [MASK], the most probable word first
    filled: str  # the text with the most probable word at every [MASK]

    @property
    def best(self) -> Filled:
        """The most probable word for the first [MASK]."""
        return self.masks[0][0]
