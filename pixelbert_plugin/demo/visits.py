"""What the buttons of the page do: pictures and texts as visitors give them, and what is shown. It knows no Gradio."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pixelbert_plugin.asking.explain import BEST, method_for, words_method_for
from pixelbert_plugin.asking.images import Decoded
from pixelbert_plugin.asking.question import cut, told_cut
from pixelbert_plugin.data.images import REMEDY
from pixelbert_plugin.demo.look import Look, reduced
from pixelbert_plugin.demo.markup import bars, figures, paragraph, percent
from pixelbert_plugin.errors import UserError

if TYPE_CHECKING:
    from pixelbert_plugin.asking.loaded_model import LoadedModel
    from pixelbert_plugin.asking.search import Gallery

MAX_CHARACTERS, MAX_TEXTS = 2000, 50  # of a text, and of texts at once
THUMBNAIL = 256  # pixels of the longer side of what is found


@dataclass(frozen=True, eq=False)
class Shown:
    """What a visitor gets for a question."""

    html: str
    explain: Callable[[], Look] | None = None  # where it comes from; None: the model cannot be explained
    remark: str | None = None  # on what was asked

    @cached_property
    def look(self) -> Look | None:
        """What `explain` gives, which may take many times as long as the answer: computed when it is asked for, once."""
        return None if self.explain is None else self.explain()


class Visits:
    """The questions of any number of visitors to one model. Pictures are read side by side; one at a time calls the model.

    Every method raises UserError, in one line that can be shown, where it cannot be asked.
    """

    def __init__(
        self,
        model: "LoadedModel",
        top_k: int,
        gallery: "Gallery | None" = None,
        folder: Path | None = None,
        method: str | None = None,
    ):
        """`gallery`: what is searched; `folder`: where its pictures lie, whose path visitors are not told. `method`: of
        explaining, by its name; None: the best one, where it is for this model. Raises UserError for one that is not."""
        self.model, self.top_k, self.gallery, self.folder = model, top_k, gallery, folder
        self.method = method_for(model, method)
        self.words_method = words_method_for(model, self.method)
        self._lock = threading.Lock()

    def answer(self, picture: str | None, question: str | None) -> Shown:
        text = self._text(question, "question")
        image = self._picture(picture, "picture")
        with self._lock:
            found = self.model.answer(image, text, self.top_k)
        rows = [(answer.text, answer.probability) for answer in found.answers]
        return Shown(
            bars(text, ("answer", "probability"), rows), self._explained([image], ["picture"], text), self._remark([text])
        )

    def match(self, picture: str | None, texts: str | None) -> Shown:
        lines = [line.strip() for line in (texts or "").splitlines() if line.strip()]
        if not lines:
            raise UserError("texts: write one or more, one a line")
        if len(lines) > MAX_TEXTS:
            raise UserError(f"texts: are {len(lines)}; {MAX_TEXTS} can be asked about at once")
        checked = [self._text(line, "texts") for line in lines]
        image = self._picture(picture, "picture")
        with self._lock:
            found = sorted(self.model.match(image, checked), key=lambda match: -match.score)
        rows = [(match.text, match.probability) for match in found]
        seen = self._explained([image], ["picture"], found[0].text)
        return Shown(bars("Best first", ("text", "belongs to the picture"), rows), seen, self._remark(checked))

    def compare(self, left: str | None, right: str | None, statement: str | None) -> Shown:
        text = self._text(statement, "statement")
        images = [self._picture(left, "left picture"), self._picture(right, "right picture")]
        with self._lock:
            found = self.model.compare(images[0], images[1], text)
        rows = [("True", found.probability), ("False", 1 - found.probability)]
        seen = self._explained(images, ["left picture", "right picture"], text)
        return Shown(bars(f"{text} – {found.label}", ("label", "probability"), rows), seen, self._remark([text]))

    def fill(self, picture: str | None, text: str | None) -> Shown:
        given = self._text(text, "text")
        image = self._picture(picture, "picture")
        with self._lock:
            found = self.model.fill(image, given, self.top_k)
        tables = [
            bars(f"[MASK] {number}", ("word", "probability"), [(filled.word, filled.probability) for filled in words])
            for number, words in enumerate(found.masks, 1)
        ]
        seen = self._explained([image], ["picture"], given)
        return Shown(paragraph(found.filled) + "".join(tables), seen, self._remark([given]))

    def search(self, text: str | None) -> Shown:
        given = self._text(text, "text")
        if self.gallery is None:
            raise UserError("search: there are no pictures to search")
        with self._lock:
            found = self.model.search(self.gallery, given, self.top_k).found
        pictures = []
        for each in found:
            path = Path(each.image)
            name = str(path.relative_to(self.folder)) if self.folder and path.is_relative_to(self.folder) else path.name
            told = f"{name}: {percent(each.probability)}"
            pictures.append((reduced(self._picture(each.image, name).pixels, THUMBNAIL), name, told))
        return Shown(figures(pictures, "found"), remark=self._remark([given]))

    def _explained(self, images: Sequence[Decoded], names: Sequence[str], text: str) -> Callable[[], Look] | None:
        def explain() -> Look:
            with self._lock:
                return Look(self.model.explain(list(images), text, None if self.method == BEST else self.method), tuple(names))

        return None if self.method is None else explain

    def _text(self, given: str | None, name: str) -> str:
        text = given or ""
        if not text.strip():
            raise UserError(f"{name}: is empty; write one")
        if len(text) > MAX_CHARACTERS:
            raise UserError(f"{name}: is {len(text):,} characters long; at most {MAX_CHARACTERS:,} are read")
        return text

    def _picture(self, path: str | None, name: str) -> Decoded:
        """A visitor's file, read as training reads one. Its errors have its name, not where it lies on this machine."""
        if not path:
            raise UserError(f"{name}: choose one first")
        try:
            return Decoded(self.model.decoded(path))
        except UserError as error:
            raise UserError(str(error).replace(str(path), Path(path).name).replace(f"; {REMEDY}", "")) from None

    def _remark(self, texts: Sequence[str]) -> str | None:
        return told_cut(self.model, number) if (number := cut(self.model, texts)) else None
