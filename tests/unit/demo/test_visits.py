"""What the buttons do: the model's own results, and one line for whatever else visitors send."""

import copy
import re
import struct
import threading
import time
import zlib

import numpy as np
import pytest

from pixelbert_plugin import UserError
from pixelbert_plugin.demo.markup import percent
from pixelbert_plugin.demo.visits import MAX_CHARACTERS, MAX_TEXTS, Visits

QUESTION = "is the disc red or blue"


def texts_of(html: str) -> list[tuple[str, str]]:
    """The rows of the tables: texts and numbers."""
    return re.findall(r'<th scope="row">(.*?)</th>.*?<td>([\d.]+ %)</td>', html)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int) -> bytes:
    """A file whose header tells of so many pixels, and that holds hardly any."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


HOSTILE = {  # by name, a file's content and what is said of it
    "bomb.png": (png(60000, 60000), "far more pixels than max_pixels"),
    "large.png": (png(14000, 13000), "14000 × 13000 pixels, more than max_pixels"),
    "text.png": (b"this is no picture", "no known image format"),
    "empty.jpg": (b"", "the file is empty"),
    "page.png": (b"<html><script>alert(1)</script></html>", "a web page"),
    "drawing.svg": (b"<svg onload='alert(1)'></svg>", "an SVG drawing"),
    "cut.png": (png(64, 64)[:60], "not a readable image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_picture_is_one_line_with_its_name(models, tmp_path, name):
    content, reason = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        Visits(models["vqa"], 5).answer(str(tmp_path / name), QUESTION)
    told = str(error.value)
    assert told.startswith(f"{name}: not a readable image (") and reason in told and "\n" not in told
    assert str(tmp_path) not in told and "raise processors" not in told  # neither where it lies, nor what is not a visitor's


def test_what_is_missing_or_too_long_is_one_line(models, pictures):
    visits, picture = Visits(models["vqa"], 5), str(pictures[0])
    for given, told in (
        ((None, QUESTION), "picture: choose one first"),
        ((picture, ""), "question: is empty; write one"),
        ((picture, None), "question: is empty; write one"),
        ((picture, "a" * (MAX_CHARACTERS + 1)), "question: is 2,001 characters long; at most 2,000 are read"),
    ):
        with pytest.raises(UserError) as error:
            visits.answer(*given)
        assert str(error.value) == told
    with pytest.raises(UserError, match=f"texts: are {MAX_TEXTS + 1}; {MAX_TEXTS} can be asked"):
        Visits(models["retrieval"], 5).match(picture, "a disc\n" * (MAX_TEXTS + 1))
    with pytest.raises(UserError, match="texts: write one or more"):
        Visits(models["retrieval"], 5).match(picture, " \n ")
    with pytest.raises(UserError, match="has no \\[MASK\\]"):
        Visits(models["pretrain"], 5).fill(picture, "a disc")


def test_answers_are_the_models_with_where_their_words_look(models, pictures):
    model = models["vqa"]
    shown = Visits(model, 3).answer(str(pictures[0]), QUESTION)
    expected = model.answer(pictures[0], QUESTION, top_k=3).answers
    assert texts_of(shown.html) == [(answer.text, percent(answer.probability)) for answer in expected]
    assert shown.look.words == (f"the answer: {expected[0].text}", "[CLS]", *QUESTION.split(), "[SEP]")
    explained = model.explain(pictures[0], QUESTION, Visits(model, 3).method)
    assert (shown.look.explanation.method, shown.look.explanation.answer) == (explained.method, explained.answer)
    np.testing.assert_allclose(shown.look.explanation.map, explained.map)
    other = Visits(model, 3, method="attention").answer(str(pictures[0]), QUESTION).look.explanation
    assert other.method == "attention" and not np.allclose(other.map, explained.map)
    with pytest.raises(UserError, match=r"^method: no explanation is registered as 'atention'"):
        Visits(model, 3, method="atention")
    assert shown.remark is None
    cut = Visits(model, 3).answer(str(pictures[0]), "disc " * 30)
    assert cut.remark == "1 text(s) are longer than 12 tokens and were cut, as in training" and len(cut.look.words) == 1 + 12


def test_texts_are_matched_best_first(models, pictures):
    model, texts = models["retrieval"], ["a green disc on a table", QUESTION, "what color is it"]
    shown = Visits(model, 5).match(str(pictures[0]), "\n".join(texts) + "\n\n")
    best = sorted(model.match(pictures[0], texts), key=lambda match: -match.score)
    assert texts_of(shown.html) == [(match.text, percent(match.probability)) for match in best]
    assert shown.look.words[1:] == ("[CLS]", *best[0].text.split(), "[SEP]")


def test_two_pictures_are_compared_and_masks_filled(models, pictures):
    compared = models["nlvr2"].compare(pictures[0], pictures[1], QUESTION)
    shown = Visits(models["nlvr2"], 5).compare(str(pictures[0]), str(pictures[1]), QUESTION)
    probability = compared.probability
    assert texts_of(shown.html) == [("True", percent(probability)), ("False", percent(1 - probability))]
    assert f"{QUESTION} – {compared.label}" in shown.html and shown.look.names == ("left picture", "right picture")
    filled = models["pretrain"].fill(pictures[0], "a [MASK] [MASK] disc", top_k=2)
    shown = Visits(models["pretrain"], 2).fill(str(pictures[0]), "a [MASK] [MASK] disc")
    words = [(each.word, percent(each.probability)) for mask in filled.masks for each in mask]
    assert texts_of(shown.html) == words and filled.filled in shown.html
    assert shown.look.words[0] == f"the answer: {filled.masks[0][0].word}" and shown.look.words[3] == "[MASK]"


def test_a_folder_is_searched_and_its_place_not_told(models, pictures):
    model, folder = models["retrieval"], pictures[0].parent
    visits = Visits(model, 4, model.gallery(folder), folder)
    shown = visits.search("a green disc")
    found = model.search(folder, "a green disc", top_k=4).found
    captions = [f"{each.image.rsplit('/', 1)[1]}: {percent(each.probability)}" for each in found]
    assert re.findall("<figcaption>(.*?)</figcaption>", shown.html) == captions
    assert str(folder) not in shown.html and shown.html.count("data:image/png") == 4 and shown.look is None
    with pytest.raises(UserError, match="there are no pictures to search"):
        Visits(model, 4).search("a green disc")


def test_the_model_is_called_by_one_visitor_at_a_time(models, pictures, monkeypatch):
    """And each gets what it asked for."""
    model, inside, most = copy.copy(models["vqa"]), [0], [0]
    own = model.output

    def output(batch):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        found = own(batch)
        inside[0] -= 1
        return found

    monkeypatch.setattr(model, "output", output, raising=False)
    visits, shown = Visits(model, 1), {}
    asked = {number: (str(pictures[number % 7]), QUESTION) for number in range(8)}
    threads = [threading.Thread(target=lambda n=n: shown.update({n: visits.answer(*asked[n]).html})) for n in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] and len(shown) == 8
    assert all(shown[number] == Visits(models["vqa"], 1).answer(*asked[number]).html for number in asked)
