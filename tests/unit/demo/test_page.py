"""What is on the page of each kind of model, without a browser."""

import copy

import pytest

pytest.importorskip("gradio", minversion="6.27", reason="gradio is not installed: pip install -e '.[demo]'")

from pathlib import Path
from types import SimpleNamespace

from pixelbert_plugin import UserError
from pixelbert_plugin.config.shipped import trained
from pixelbert_plugin.demo import page as demo
from pixelbert_plugin.demo.page import gradio, page, theme
from pixelbert_plugin.demo.visits import Visits


def components(blocks, *kinds: str) -> list:
    return [each for each in blocks.blocks.values() if type(each).__name__ in kinds]


def headings(blocks) -> list[str]:
    lines = [line for each in components(blocks, "Markdown") for line in each.value.splitlines()]
    return [line.lstrip("# ") for line in lines if line.startswith("## ")]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("vqa", ["Ask about a picture"]),
        ("retrieval", ["Search 7 pictures", "Which texts belong to a picture?"]),
        ("nlvr2", ["Is a statement about two pictures true?"]),
        ("pretrain", ["Search 7 pictures", "Which texts belong to a picture?", "Fill in masked words"]),
    ],
)
def test_what_is_there_follows_what_can_be_asked(models, pictures, task, expected):
    model = models[task]
    gallery = model.gallery(pictures) if "match" in model.task.asked() else None
    blocks = page(Visits(model, 5, gallery), "save/mine")
    assert headings(blocks) == expected
    given = components(blocks, "Image", "Textbox", "Radio")
    assert given and all(each.label and each.show_label is not False for each in given)
    assert all(each.alt_text for each in components(blocks, "Image"))
    public = {each.api_name for each in blocks.fns.values() if each.api_visibility == "public"}
    assert public == set(model.task.asked()) | ({"search"} if gallery is not None else set())
    assert {each.concurrency_id for each in blocks.fns.values()} == {"model"}
    assert {each.concurrency_limit for each in blocks.fns.values()} == {demo.VISITORS_AT_ONCE}
    assert all(button.value for button in components(blocks, "Button"))


def test_without_a_folder_it_says_how_to_search(models):
    blocks = page(Visits(models["retrieval"], 5), "save/mine")
    assert headings(blocks) == ["Which texts belong to a picture?"]
    assert any("images=FOLDER" in each.value for each in components(blocks, "Markdown"))


def test_a_picture_and_a_question_stand_there_at_first(models, tmp_path, monkeypatch):
    """The picture among those that visitors upload, so that it can be asked about, and no other file of this machine."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    begin = trained()
    blocks = page(Visits(models["vqa"], 5), begin.name, begin)
    (image,), (text,) = components(blocks, "Image"), components(blocks, "Textbox")
    assert text.value == begin.question() and image.value["orig_name"] == "picture.png"
    assert Path(image.value["path"]).read_bytes() == begin.picture.read_bytes()
    assert Path(image.value["path"]).resolve().is_relative_to(tmp_path.resolve())


def test_a_picture_is_not_opened_by_gradio(models, tmp_path):
    """Nor is an address fetched that comes in the place of a file."""
    (image,) = components(page(Visits(models["vqa"], 5), "save/mine"), "Image")
    (tmp_path / "not.png").write_bytes(b"no picture")
    payload = SimpleNamespace(path=str(tmp_path / "not.png"), url="data:image/png;base64,AAAA", orig_name="x.png")
    assert image.preprocess(payload) == str(tmp_path / "not.png") and image.preprocess(None) is None


def test_errors_of_visitors_are_one_escaped_line(models, tmp_path):
    blocks = page(Visits(models["vqa"], 5), "save/mine")
    (ask,) = (each.fn for each in blocks.fns.values() if each.api_name == "answer")
    evil = tmp_path / "<img src=x onerror=alert(1)>.png"
    evil.write_bytes(b"no picture")
    with pytest.raises(gradio().Error) as error:
        next(ask(str(evil), "what is it?"))
    told = error.value.message
    assert told == "&lt;img src=x onerror=alert(1)&gt;.png: not a readable image (10 bytes; no known image format)"
    assert error.value.print_exception is False


def test_an_answer_does_not_wait_for_its_explanation(models, pictures, monkeypatch):
    """Which goes through the model many times: it is shown first, and what explained the one before it is gone."""
    model, begun = copy.copy(models["vqa"]), []
    explain = model.explain
    monkeypatch.setattr(model, "explain", lambda *given: begun.append(given) or explain(*given), raising=False)
    blocks = page(Visits(model, 5), "save/mine")
    (ask,) = (each.fn for each in blocks.fns.values() if each.api_name == "answer")
    steps = ask(str(pictures[0]), "is the disc red")
    html, look, words, seen = next(steps)
    assert "<table" in html and (look, words.visible, seen) == (None, False, "") and not begun
    (again, look, words, seen), *others = steps
    assert again == html and len(begun) == 1 and others == []
    assert words.visible and len(words.choices) == len(look.words) and seen == look.html(0)


def test_a_word_is_chosen(models, pictures):
    visits = Visits(models["vqa"], 5)
    shown = visits.answer(str(pictures[0]), "is the disc red")
    assert demo._shown_look(shown.look, 2) == shown.look.html(2) != shown.look.html(0)
    for look, word in ((None, 0), (shown.look, 99), (shown.look, -1), (shown.look, "0"), (shown.look, None)):
        with pytest.raises(UserError, match="this result is no longer kept; ask again"):
            demo._shown_look(look, word)


def test_no_font_is_loaded():
    assert theme()._stylesheets == [] and "fonts.googleapis" not in theme()._get_theme_css()


def test_a_gradio_that_is_too_old_is_one_line(monkeypatch):
    monkeypatch.setattr(demo.metadata, "version", lambda name: "6.26.9")
    with pytest.raises(UserError, match=r"gradio 6.26.9 is too old for the page; pip install 'pixelbert_plugin\[demo\]'"):
        gradio()
