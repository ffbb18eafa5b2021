"""Text, image and answer processors."""

import gc
import io
import json
import mmap
import os
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as T
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers

from pixelbert_plugin import registry
from pixelbert_plugin.data.images import BadImageError, upright_size
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.processors.image import resize, zeros


def build(name, **params):
    role = "text" if name == "bert_tokenizer" else name
    return registry.build("processor", name, params, f"processors.{role}.params")


# ---------------------------------------------------------------- text


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "color", "is", "the", "un", "##aff", "##able", "?"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return tmp_path


def test_word_pieces_from_a_vocab_file(folder):
    text = build("bert_tokenizer", vocabulary=str(folder))
    ids, cut = text("What color is the unaffable?")
    tokens = [VOCABULARY[index] for index in ids]
    assert tokens == ["[CLS]", "what", "color", "is", "the", "un", "##aff", "##able", "?", "[SEP]"] and not cut
    assert VOCABULARY[text("zebra")[0][1]] == "[UNK]"
    assert (text.vocab_size, text.pad_token_id, text.mask_token_id) == (13, 0, 4)


def test_an_id_that_no_vocabulary_has_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY))
    content = json.loads(build("bert_tokenizer", vocabulary=str(tmp_path)).state_dict()["tokenizer"])
    content["model"]["vocab"]["the"] = 2_000_000_000
    text = build("bert_tokenizer", vocabulary=str(tmp_path))
    text.load_state_dict({"tokenizer": json.dumps(content)})
    with pytest.raises(UserError, match=r"vocabulary=.*: 'the' has the id 2,000,000,000; .* at most 4,194,304 are taken"):
        assert text.vocab_size


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ([*VOCABULARY, "the", "what", "zebra"], 16),  # duplicates: the later line is the word's, as transformers has it
        ([*VOCABULARY[:5], "", "", *VOCABULARY[5:], "zebra"], 16),
    ],
)
def test_ids_are_lines_where_words_are_duplicated_or_lines_blank(tmp_path, lines, size):
    (tmp_path / "vocab.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    text = build("bert_tokenizer", vocabulary=str(tmp_path))
    again = build("bert_tokenizer")
    again.load_state_dict(text.state_dict())
    last = {word: number for number, word in enumerate(lines)}
    for tokenizer in (text, again):
        assert tokenizer.vocab_size == size
        assert tokenizer("the zebra unaffable")[0] == [
            2,
            *(last[word] for word in ("the", "zebra", "un", "##aff", "##able")),
            3,
        ]
        is_word_V, is_inside_V = tokenizer.pieces()
        assert [lines[number] for number in is_inside_V.nonzero()[0]] == ["##aff", "##able"]
        others = {word for word in lines if word not in ("", "[PAD]", "[CLS]", "[SEP]", "[MASK]")}
        assert {lines[number] for number in is_word_V.nonzero()[0]} == others and is_word_V.sum() == len(others)


@pytest.mark.parametrize(("name", "content"), [("vocab.txt", "[PAD]\ncafé\n".encode("latin-1")), ("tokenizer.json", b"{}")])
def test_a_damaged_vocabulary_is_not_told_as_a_missing_folder(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"processors.text.params.vocabulary='.*': {name} .*fetch the folder again") as raised:
        build("bert_tokenizer", vocabulary=str(tmp_path))
    assert "no folder" not in str(raised.value)


@pytest.mark.parametrize(
    ("words", "lowercase", "message"),
    [
        (
            ["What", "is", "the"],
            True,
            r"1 of its 3 words have capitals \(such as 'What'\), which .*lowercase=true leaves no text",
        ),
        (
            ["what", "is", "the"],
            False,
            r"no word of it has a capital, .*becomes \[UNK\]; set processors.text.params.lowercase=true",
        ),
        (["what", "is", "the"], True, None),
        (["What", "is", "the"], False, None),
    ],
)
def test_a_vocabulary_of_the_other_case_is_told(tmp_path, caplog, words, lowercase, message):
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY[:5], *words]))
    build("bert_tokenizer", vocabulary=str(tmp_path), lowercase=lowercase)
    assert re.search(message, caplog.text) if message else not caplog.records


def test_truncation_keeps_sep_and_is_told(folder):
    text = build("bert_tokenizer", vocabulary=str(folder), max_length=5)
    assert text("what color is the") == ([2, 5, 6, 7, 3], True)
    assert text("what color is") == ([2, 5, 6, 7, 3], False)


def build_on(texts):
    text = build("bert_tokenizer")
    text.fit(texts)
    return text


def test_trained_vocabulary_is_reproducible_and_travels_with_the_state():
    texts = ["what color is the circle?", "is there a red circle?", "what shape is it?"] * 3
    assert build("bert_tokenizer").needs_fit
    first, second = build_on(texts), build_on(reversed(texts))
    assert first.state_dict() == second.state_dict()
    loaded = build("bert_tokenizer")
    loaded.load_state_dict(first.state_dict())
    assert not loaded.needs_fit and loaded(texts[0]) == first(texts[0])
    assert first.decode(first("What color is it?")[0]) == "what color is it?"
    assert first.state_dict() != build_on(["other words"]).state_dict()
    assert len(first("what color is it?")[0]) == 7  # every word of the training texts is one piece


def test_vocabulary_does_not_depend_on_the_process():
    """Hash seeds differ between processes; tokenizers' own trainer gives other vocabularies for them."""
    texts = ["red circle on blue", "blue circle on red", "is it red or blue"] * 2
    code = (
        "import pixelbert_plugin.processors; from pixelbert_plugin import registry;"
        "text = registry.build('processor', 'bert_tokenizer', {}, 'p');"
        f"text.fit({texts}); print(text.state_dict())"
    )
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert os.environ.get("PYTHONHASHSEED") != "7" and other.stdout == f"{build_on(texts).state_dict()}\n"


ODD = st.sampled_from("aAbB é́ßΣİ.,-[]東ﷺ🏄\u200d\u3000\x1c\t\n\x00\u00a0\u0345")


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(ODD | st.characters(codec="utf-8"), max_size=12)))
def test_texts_are_counted_as_cut_that_are_cut(cut_counter, texts):
    """Word by word, of any script, with the controls and spaces that Python and BERT part words by otherwise."""
    texts += ["[MASK] a[MASK]b", "a b a b a"]
    assert cut_counter.count_cut(texts) == sum(cut_counter(text)[1] for text in texts) > 0


@pytest.fixture(scope="module")
def cut_counter():
    text = build("bert_tokenizer", max_length=6)
    text.fit(["aab ab b é east 東 . ,", "aab ab ß"] * 3)
    return text


def test_words_are_as_they_are_written_with_the_places_of_their_pieces(cut_counter):
    written = "AAB b[MASK] éb,"
    ids, is_cut = cut_counter(written)
    names = cut_counter._tokenizer.encode(written).tokens
    assert names == ["[CLS]", "aab", "b", "[MASK]", "e", "##b", ",", "[SEP]"] and is_cut  # six of these eight are kept
    words = [("[CLS]", [0]), ("AAB", [1]), ("b", [2]), ("[MASK]", [3]), ("é", [4]), ("[SEP]", [5])]
    assert cut_counter.words(written) == words
    assert cut_counter.words("éb") == [("[CLS]", [0]), ("éb", [1, 2]), ("[SEP]", [3])] and len(ids) == 6


def test_a_tokenizer_that_is_not_berts_counts_text_by_text(tmp_path, cut_counter):
    """One that parts texts at punctuation alone."""
    other = Tokenizer.from_str(cut_counter._tokenizer.to_str())
    other.pre_tokenizer = pre_tokenizers.Punctuation()
    other.save(str(tmp_path / "tokenizer.json"))
    read = build("bert_tokenizer", max_length=6, vocabulary=str(tmp_path))
    texts = ["a b", "a b a b a b", "aab ab b é", "b"]
    by_word = sum(
        sum(len(read._tokenizer.encode(word, add_special_tokens=False)) for word in text.split()) > 4 for text in texts
    )
    assert read.count_cut(texts) == sum(read(text)[1] for text in texts) != by_word


def test_rare_words_are_made_of_pieces_and_nothing_seen_is_unknown():
    """Words seen once share what other words are made of, as BERT's vocabulary does."""
    common = ["the player is playing", "a running player was running"] * 50
    text = build_on([*common, "she plays", "he runs the ＣＡＦÉ 東 ﷺ naïve", "sprinting 🏄"])
    pieces = text._tokenizer.encode("the player plays").tokens
    assert pieces == ["[CLS]", "the", "player", "play", "##s", "[SEP]"]
    for seen in ("he runs the ＣＡＦÉ 東 ﷺ naïve", "sprinting 🏄"):
        assert "[UNK]" not in text._tokenizer.encode(seen).tokens
    characters = set("".join(common)) - {" "}
    size = 5 + 2 * len(characters) + 3
    small = build("bert_tokenizer", vocab_size=size)
    small.fit(common)
    assert small.vocab_size == size < build_on(common).vocab_size
    least = build("bert_tokenizer", vocab_size=5)
    least.fit(common)
    assert least.vocab_size == 5 + 2 * len(characters)


def test_bad_vocabularies_name_the_option(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=r"neither tokenizer\.json nor vocab\.txt"):
        build("bert_tokenizer", vocabulary=str(tmp_path))
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nword\n")
    with pytest.raises(UserError, match=r"has no \[CLS\], \[SEP\], \[MASK\]"):
        build("bert_tokenizer", vocabulary=str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"processors.text.params.vocabulary="):
        build("bert_tokenizer", vocabulary=str(tmp_path))


# ---------------------------------------------------------------- image


def gradient(mode: str) -> Image.Image:
    """16 × 8 with a clear left (dark) and right (bright)."""
    values = np.tile(np.linspace(0, 255, 16).astype(np.uint8), (8, 1))
    return Image.fromarray(values).convert(mode) if mode != "L" else Image.fromarray(values)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.png"),
        ("L", "a.jpg"),
        ("P", "a.png"),
        ("RGB", "a.png"),
        ("RGBA", "a.png"),
        ("LA", "a.png"),
        ("1", "a.png"),
        ("CMYK", "a.jpg"),
        ("RGB", "a.bmp"),
        ("P", "a.gif"),
        ("RGB", "a.webp"),
        ("L", "a.tiff"),
    ],
)
def test_every_mode_becomes_uint8_rgb(tmp_path, mode, name):
    gradient(mode).save(tmp_path / name)
    image = build("image").decode(tmp_path / name)
    assert image.dtype == torch.uint8 and tuple(image.shape) == (3, 8, 16)
    assert image[:, :, :4].float().mean() < 90 and image[:, :, -4:].float().mean() > 160


def test_content_decides_not_the_name(tmp_path):
    gradient("RGB").save(tmp_path / "a.jpg", quality=95)
    (tmp_path / "a.jpg").rename(tmp_path / "really_jpeg.png")
    assert tuple(build("image").decode(tmp_path / "really_jpeg.png").shape) == (3, 8, 16)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.tile(np.linspace(0, 65535, 16).astype(np.uint16), (8, 1))
    Image.fromarray(values).save(tmp_path / "a.png")
    image = build("image").decode(tmp_path / "a.png")
    assert image[0, 0].tolist() == [value >> 8 for value in values[0].tolist()]


def test_thirty_two_bits(tmp_path):
    Image.fromarray(np.array([[0, 100], [200, 255]], dtype=np.int32)).save(tmp_path / "small.tiff")
    assert build("image").decode(tmp_path / "small.tiff")[0].tolist() == [[0, 100], [200, 255]]
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(BadImageError, match="floating-point pixels"):
        build("image").decode(tmp_path / "float.tiff")


def test_sixteen_bit_colour(tmp_path):
    """A hand-made 16-bit RGB PNG, which Pillow itself cannot write."""
    import zlib

    row = b"\x00" + b"".join(struct.pack(">HHH", 0, 32768, 65535) for _ in range(4))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 2)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    image = build("image").decode(tmp_path / "a.png")
    assert image[:, 0, 0].tolist() == [0, 128, 255] and tuple(image.shape) == (3, 2, 4)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff"])
def test_exif_rotation(tmp_path, name):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter: the bright right becomes the bottom
    gradient("RGB").save(tmp_path / name, exif=exif)
    image = build("image").decode(tmp_path / name)
    assert tuple(image.shape) == (3, 16, 8) and upright_size(tmp_path / name) == (16, 8)
    assert image[:, -4:].float().mean() > 160 > 90 > image[:, :4].float().mean()


def test_bad_files_are_named(tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, "PNG")
    cases = {"torn.png": buffer.getvalue()[:800], "empty.jpg": b"", "text.jpg": b"not an image"}
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, "JPEG")
    cases["torn.jpg"] = buffer.getvalue()[:600]
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadImageError, match=f"{name}: not a readable image"):
            build("image").decode(tmp_path / name)
    with pytest.raises(BadImageError, match="No such file"):
        build("image").decode(tmp_path / "none.jpg")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((500, 1000), (666, 1333)), ((1600, 1600), (800, 800))],
)
def test_short_and_long_edge_rule(size, expected):
    assert build("image").resized(*size) == expected


def test_resize_normalise_and_pad_on_the_device():
    image = build("image", short_edge=32, long_edge=48, mean=[0.5, 0.5, 0.5], std=[0.25, 0.5, 1.0])
    flat = torch.full((3, 40, 80), 255, dtype=torch.uint8)
    tall = torch.zeros(3, 64, 32, dtype=torch.uint8)
    images, sizes = image([flat, tall, flat])
    assert sizes.tolist() == [[24, 48], [48, 24], [24, 48]]
    assert tuple(images.shape) == (3, 3, 48, 48) and images.dtype == torch.float32
    torch.testing.assert_close(images[0, :, :24, :48], torch.tensor([2.0, 1.0, 0.5])[:, None, None].expand(3, 24, 48))
    torch.testing.assert_close(images[1, :, :, :24], torch.tensor([-2.0, -1.0, -0.5])[:, None, None].expand(3, 48, 24))
    assert (images[0, :, 24:] == 0).all() and (images[1, :, :, 24:] == 0).all()
    alone, size = image(tall, "cpu")
    assert size.tolist() == [[48, 24]] and torch.equal(alone, images[1:2, :, :, :24])


def test_enlarged_shrunk_and_kept_images_are_torchvisions_resized_then_normalised():
    """In whichever order that is done here; and what was given stays as it was."""
    image, draw = build("image", short_edge=48, long_edge=64), torch.Generator().manual_seed(3)
    given = [torch.randint(0, 256, (3, *size), generator=draw, dtype=torch.uint8) for size in ((30, 40), (48, 64), (150, 190))]
    before = [each.clone() for each in given]
    images, sizes = image(given)
    mean, std = (torch.tensor(values)[:, None, None] for values in (image.config.mean, image.config.std))
    for own, source, size in zip(images, before, sizes.tolist(), strict=True):
        resized = T.resize(source.float(), size, antialias=True)
        torch.testing.assert_close(own[:, : size[0], : size[1]], (resized / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(*pair) for pair in zip(given, before, strict=True))


def enlarged(values_3hw, height, width):
    """float64, by the definition: pixel centres, the two nearest rows and columns, the outermost ones repeated."""

    def along(values, axis, size):
        at = (torch.arange(size, dtype=torch.float64) + 0.5) * values.shape[axis] / size - 0.5
        low = at.floor().long()
        share = (at - low).view([-1 if each == axis else 1 for each in range(3)])
        rows = [values.index_select(axis, place.clamp(0, values.shape[axis] - 1)) for place in (low, low + 1)]
        return rows[0] * (1 - share) + rows[1] * share

    return along(along(values_3hw.double(), 1, height), 2, width)


@pytest.mark.parametrize(
    ("own", "to"), [((48, 64), (80, 107)), ((1, 5), (3, 15)), ((30, 40), (30, 41)), ((480, 640), (800, 1067))]
)
def test_enlarging_by_the_definition(own, to):
    values = torch.rand(3, *own, generator=torch.Generator().manual_seed(1))
    # neighbours of up to 1 apart, at a place that is known to within a pixel's number times float32's last digit
    points = {(2, 2): torch.zeros(1, 2, 2, 2)}
    for _ in range(2):
        found = resize(values, *to, points)
        torch.testing.assert_close(found.double(), enlarged(values, *to), rtol=0, atol=2e-7 * max(16, *own))
    assert list(points) == [to]


def test_images_memory_is_zero_and_stays_while_it_is_used(monkeypatch):
    shape = (2, 3, 700, 800)
    whole = zeros(shape, torch.device("cpu"))
    assert whole.dtype == torch.float32 and whole.shape == shape and not whole.any()
    part = whole[1, 2, 5:].fill_(7)
    del whole
    gc.collect()
    others = [zeros(shape, torch.device("cpu")).fill_(1) for _ in range(3)]
    assert (part == 7).all() and len(others) == 3

    class Refusing(mmap.mmap):
        def madvise(self, *_):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr("pixelbert_plugin.processors.image.mmap.mmap", Refusing)
    assert not zeros(shape, torch.device("cpu")).any()
    monkeypatch.delattr("pixelbert_plugin.processors.image.mmap.MADV_HUGEPAGE")
    assert not zeros(shape, torch.device("cpu")).any()


def test_very_large_images_are_reduced_before_transfer(tmp_path):
    Image.effect_noise((1200, 900), 50).convert("RGB").save(tmp_path / "big.jpg")
    image = build("image", short_edge=60, long_edge=100)
    assert tuple(image.decode(tmp_path / "big.jpg").shape) == (3, 120, 160)


def test_augmentation_is_a_function_of_the_seed():
    image = build("image", horizontal_flip=0.5, min_crop=0.6, color_jitter=0.3)
    picture = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8)
    views = [image.augment(picture, seed) for seed in range(20)]
    assert all(torch.equal(view, image.augment(picture, seed)) for seed, view in enumerate(views))
    assert len({tuple(view.shape) for view in views}) > 10
    assert all(view.shape[1] >= 24 and view.shape[2] >= 30 for view in views)
    flipped = build("image", horizontal_flip=1.0).augment(picture, 0)
    assert torch.equal(flipped, picture.flip(2)) and torch.equal(build("image").augment(picture, 0), picture)


# ---------------------------------------------------------------- answers


def test_vocabulary_counts_normalised_answers_with_a_threshold(tmp_path):
    answers = build("answers", min_occurrences=2)
    assert answers.needs_fit
    answers.fit(["Yes", "yes", "yes.", "two", "2", "cat", "the dog", "dog"])
    assert answers.answers == ["yes", "2", "dog"]  # by count, then by the alphabet
    scores = answers.scores(("yes",) * 2 + ("Two",) * 8)
    torch.testing.assert_close(scores, torch.tensor([0.6, 1.0, 0.0]))
    again = build("answers")
    again.load_state_dict(answers.state_dict())
    assert again.answers == answers.answers and torch.equal(again.scores(("2",)), torch.tensor([0.0, 1.0, 0.0]))
    with pytest.raises(UserError, match="min_occurrences=9: no answer occurs so often"):
        build("answers").fit(["yes"] * 8)
