"""The page itself: what is on it follows what the model's task can be asked. Gradio's components, and no more than that."""

import inspect
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

from pixelbert_plugin.config.shipped import Trained
from pixelbert_plugin.demo.look import Look
from pixelbert_plugin.demo.visits import MAX_CHARACTERS, Shown, Visits
from pixelbert_plugin.errors import UserError

INSTALL = "pip install 'pixelbert_plugin[demo]'"
OLDEST = (6, 27)  # Gradio's version: before, a picture could have no text in its place
AT_HOME = {  # nothing is told to anybody: set before Gradio is imported
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
VISITORS_AT_ONCE, VISITORS_WAITING = 4, 100
KEPT_SECONDS = 3600  # how long a visitor's picture and last result are
CSS = """
.gradio-container { max-width: 75rem !important; margin: 0 auto !important }
.bars { width: 100%; border-collapse: collapse }
.bars thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
.bars caption { text-align: left; font-weight: 600; overflow-wrap: anywhere }
.bars th, .bars td { text-align: left; padding: .25rem .5rem; border: 0; overflow-wrap: anywhere }
.bars tbody td:last-child { white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums }
.bars tbody td:nth-child(2) { width: 45% }
.bar { display: block; height: .9rem; border: 1px solid currentColor }
.bar > span { display: block; height: 100%; background: #2563eb; forced-color-adjust: none }
.looks, .found { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem }
.looks li, .found li { list-style: none; margin: 0 }
.looks { grid-template-columns: repeat(auto-fit, minmax(min(14rem, 100%), 1fr)) }
.found { grid-template-columns: repeat(auto-fill, minmax(min(9rem, 100%), 1fr)) }
.looks figure, .found figure { margin: 0 }
.looks img, .found img { width: 100%; max-height: 32rem; object-fit: contain; image-rendering: auto; margin: 0 }
.looks figcaption, .found figcaption { overflow-wrap: anywhere }
:focus-visible { outline: 3px solid #2563eb; outline-offset: 2px }
"""
# a screen reader tells of results as they come, and what a group of words is for
READ_OUT = """() => {
  const mend = () => {
    for (const each of document.querySelectorAll('[id$=_results], [id$=_look]')) each.setAttribute('aria-live', 'polite');
    for (const each of document.querySelectorAll('fieldset:not([aria-label])')) {
      const label = each.querySelector('[data-testid="block-info"]');
      if (label) each.setAttribute('aria-label', label.textContent.trim());
    }
  };
  mend();
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
}"""
MEANINGS = {
    "answer": "Each answer's own probability, as the training's loss has it: they do not add up to 100 %.",
    "match": "Whether each text by itself belongs to the picture; a model trained for retrieval means their order.",
    "search": "The probability that a picture and the text belong together; the order means more than its value.",
    "compare": "The probability of each of the two labels.",
    "fill": "The probability of each word of the vocabulary at that [MASK].",
}


def gradio() -> Any:
    """The package. Raises UserError where it is not there, or too old."""
    os.environ.update(AT_HOME)
    try:
        version = metadata.version("gradio")
        if tuple(int(number) for number in version.split(".")[:2]) < OLDEST:
            raise UserError(f"gradio {version} is too old for the page; {INSTALL}")
        import gradio
    except (metadata.PackageNotFoundError, ModuleNotFoundError) as error:
        missing = getattr(error, "name", None) or "gradio"
        raise UserError(f"the page needs the package {missing}, which is not installed; {INSTALL}") from error
    return gradio


def page(visits: Visits, name: str, begin: Trained | None = None) -> Any:
    """Gradio's Blocks. `name`: of the checkpoint, as it is shown. `begin`: whose picture and question stand there at first."""
    gr = gradio()
    asked = visits.model.task.asked()
    with gr.Blocks(
        analytics_enabled=False, title=f"Pixel-BERT: {name}", delete_cache=(KEPT_SECONDS // 4, KEPT_SECONDS)
    ) as blocks:
        gr.Markdown(f"# Pixel-BERT\n\n`{name.replace('`', '')}`, trained for {visits.model.config.task}")
        if visits.gallery is not None:
            _search(gr, visits)
        for way, section in SECTIONS.items():
            if way in asked:
                section(gr, visits, begin)
        if "match" in asked and visits.gallery is None:
            gr.Markdown("To search a folder of pictures here, start `pixelbert-demo` with `images=FOLDER`.")
        gr.Markdown(
            "Pictures are sent to the machine that runs this page, kept there for about an hour at most, and sent nowhere else."
        )
    for block in blocks.blocks.values():
        block.async_move_resource_to_block_cache = _uploads_alone(gr)
    blocks.has_launched = True  # a page within another application is asked for any file otherwise (gradio 6.31)
    blocks.queue(max_size=VISITORS_WAITING, default_concurrency_limit=VISITORS_AT_ONCE)
    return blocks


def _uploads_alone(gr: Any) -> Callable[[Any], Awaitable[str | None]]:
    """In the place of what takes in the file that a visitor's message names: it would copy a file of this machine, or fetch one
    from another."""

    async def taken(given: Any) -> str | None:
        if given is None:
            return None
        folder, path = os.path.realpath(os.environ["GRADIO_TEMP_DIR"]), os.path.realpath(str(given))
        if os.path.commonpath([folder, path]) != folder:
            raise gr.Error("a picture must be uploaded first", print_exception=False)
        return path

    return taken


def theme() -> Any:
    """Fonts of the reader's system, of which none is loaded, and colours that differ enough to be read (WCAG's 4.5)."""
    gr = gradio()
    found = gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "Segoe UI", "Roboto", "Arial", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
    )
    greys = ("block_info_text_color", "block_label_text_color", "block_title_text_color", "input_placeholder_color")
    blues = ("button_primary_background_fill", "button_primary_background_fill_dark")
    return found.set(
        **dict.fromkeys(blues, "*primary_600"),
        **dict.fromkeys(greys, "*neutral_600"),
        **{f"{name}_dark": "*neutral_300" for name in greys},
    )


def _answer(gr: Any, visits: Visits, begin: Trained | None) -> None:
    gr.Markdown("## Ask about a picture")
    given = ("Question", "what is in the picture?", "Ask")
    _about_a_picture(gr, visits, "answer", visits.answer, given, "the most probable answer", begin=begin)


def _match(gr: Any, visits: Visits, begin: Trained | None) -> None:
    gr.Markdown("## Which texts belong to a picture?")
    given = ("Texts, one a line", "a dog on a beach", "Match")
    _about_a_picture(gr, visits, "match", visits.match, given, "whether the best text matches", lines=4)


def _compare(gr: Any, visits: Visits, begin: Trained | None) -> None:
    gr.Markdown("## Is a statement about two pictures true?")
    with gr.Row():
        left, right = _picture(gr, "Left picture"), _picture(gr, "Right picture")
    text = gr.Textbox(label="Statement", placeholder="Both have two dogs.", max_length=MAX_CHARACTERS)
    button = gr.Button("Compare", variant="primary")
    _results(gr, visits, "compare", visits.compare, [left, right, text], [button.click, text.submit], "the label")


def _fill(gr: Any, visits: Visits, begin: Trained | None) -> None:
    gr.Markdown("## Fill in masked words")
    given = ("Text with [MASK]", "a [MASK] on a table", "Fill in")
    _about_a_picture(gr, visits, "fill", visits.fill, given, "the most probable word at the first [MASK]")


def _search(gr: Any, visits: Visits) -> None:
    gr.Markdown(f"## Search {len(visits.gallery or ()):,} pictures")
    text = gr.Textbox(label="What to search for", placeholder="a dog on a beach", max_length=MAX_CHARACTERS)
    button = gr.Button("Search", variant="primary")
    _results(gr, visits, "search", visits.search, [text], [button.click, text.submit], "")


SECTIONS: dict[str, Callable[[Any, Visits, Trained | None], None]] = {
    "answer": _answer,
    "match": _match,
    "compare": _compare,
    "fill": _fill,
}


def _picture(gr: Any, label: str, first: Path | None = None) -> Any:
    """Where a picture is put; `first` stands there. The file is passed on as it came: it is opened by the code that training
    uses, and no other."""
    found = gr.Image(
        value=None if first is None else _among_uploads(first),
        label=label,
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=280,
        buttons=["fullscreen"],
        alt_text=f"{label}, as it was chosen",
    )
    found.preprocess = lambda payload: None if payload is None else payload.path
    return found


def _among_uploads(picture: Path) -> str:
    """A copy of it in the only folder that pictures are taken from."""
    (folder := Path(os.environ["GRADIO_TEMP_DIR"]) / "begin").mkdir(parents=True, exist_ok=True)
    return str(shutil.copy(picture, folder))


def _about_a_picture(
    gr: Any,
    visits: Visits,
    way: str,
    ask: Callable[..., Shown],
    given: tuple[str, str, str],
    explained: str,
    lines: int = 1,
    begin: Trained | None = None,
) -> None:
    """A picture, a text about it and the button, beside what is shown of `ask`. `given`: the text's label, an example, and the
    button's. One line is asked about by the Enter key too."""
    label, example, button = given
    with gr.Row():
        with gr.Column(min_width=300):
            picture = _picture(gr, "Picture", begin.picture if begin else None)
            longest = None if lines > 1 else MAX_CHARACTERS
            first = begin.question() if begin else None
            text = gr.Textbox(first, label=label, placeholder=example, lines=lines, max_length=longest)
            events = [gr.Button(button, variant="primary").click, *([text.submit] if lines == 1 else [])]
        with gr.Column(min_width=300):
            _results(gr, visits, way, ask, [picture, text], events, explained)


def _results(
    gr: Any,
    visits: Visits,
    way: str,
    ask: Callable[..., Shown],
    given: list[Any],
    events: list[Callable[..., Any]],
    explained: str,
) -> None:
    """What is shown of `ask(*given)` when one of the events comes. `explained`: what its explanation is of; "": it has none."""
    is_explained = bool(explained) and visits.method is not None
    results = gr.HTML(elem_classes=["results"], elem_id=f"{way}_results", label=f"Results of {way}")
    gr.Markdown(MEANINGS[way])
    outputs = [results]
    if is_explained:
        state = gr.State(None, time_to_live=KEPT_SECONDS)
        words = gr.Radio(
            [],
            label="Where does this come from?",
            info=f"{explained.capitalize()}, by the method {visits.method}; a word, by {visits.words_method}.",
            visible=False,
        )
        seen = gr.HTML(elem_classes=["results"], elem_id=f"{way}_look", label="Explanation")
        outputs += [state, words, seen]
        words.input(_told(gr, _shown_look), [state, words], seen, api_visibility="private", **_together())

    def call(*values: Any) -> Iterator[Any]:
        """The answer, and where it comes from as soon as that is known."""
        shown = ask(*values)
        if shown.remark is not None:
            gr.Warning(escape(shown.remark, quote=False))
        if not is_explained:
            yield shown.html
            return
        yield shown.html, None, gr.Radio(choices=[], visible=False), ""
        look = shown.look
        if look is not None:
            choices = [(word, place) for place, word in enumerate(look.words)]
            yield shown.html, look, gr.Radio(choices=choices, value=0, visible=True), look.html(0)

    for place, event in enumerate(events):
        visible = {"api_name": way} if place == 0 else {"api_visibility": "private"}
        event(_told(gr, call), given, outputs, show_progress_on=results, **visible, **_together())


def _shown_look(look: Look | None, word: int | None) -> str:
    if look is None or not isinstance(word, int) or not 0 <= word < len(look.words):
        raise UserError("this result is no longer kept; ask again")
    return look.html(word)


def _together() -> dict[str, Any]:
    """All that calls the model waits in one line."""
    return {"concurrency_limit": VISITORS_AT_ONCE, "concurrency_id": "model"}


def _told(gr: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose errors of input are one line on the page."""

    @contextmanager
    def in_one_line() -> Iterator[None]:
        try:
            yield
        except UserError as error:  # shown as HTML, where a file's name may stand
            raise gr.Error(escape(str(error), quote=False), duration=None, print_exception=False) from None

    def call(*values: Any) -> Any:
        with in_one_line():
            return function(*values)

    def steps(*values: Any) -> Iterator[Any]:
        with in_one_line():
            yield from function(*values)

    return steps if inspect.isgeneratorfunction(function) else call
