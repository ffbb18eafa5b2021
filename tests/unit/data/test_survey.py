"""What is said of a split's texts and answers before training, counted by hand."""

import random
from types import SimpleNamespace

import pytest
from conftest import damage
from rich.console import Console

from pixelbert_plugin import registry
from pixelbert_plugin.commands import data as data_cli
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.data.survey import seen_in_training, survey
from pixelbert_plugin.training import data_remarks
from pixelbert_plugin.types import Sample
from unit.data.builders import test_coco
from unit.data.builders.test_flickr30k import record, write
from unit.data.test_samples import official


def text_processor(texts, max_length=6):
    text = registry.build("processor", "bert_tokenizer", {"max_length": max_length}, "t")
    text.fit(texts)
    return text


def samples_of(texts, answers=()):
    answers = answers or [()] * len(texts)
    pairs = zip(texts, answers, strict=True)
    return Samples.of(
        Sample(sample_id=n, image_ids=(n,), images=("x",), text=t, answers=tuple(a)) for n, (t, a) in enumerate(pairs)
    )


def said(*arguments) -> dict[str, tuple[bool, str]]:
    return {remark.what: (remark.is_warning, remark.detail) for remark in survey(*arguments)}


def test_long_texts_are_counted_once_each_from_files_and_from_lists(vqa2_root):
    pairs = official("vqa2", vqa2_root).samples("train")
    text = text_processor([sample.text for sample in pairs], max_length=7)
    long = sum(len(text._tokenizer.encode(sample.text).ids) > 7 for sample in pairs)
    expected = f"{long} of {len(pairs)} are longer than processors.text.params.max_length=7 tokens, and are cut"
    assert 0 < long < len(pairs)
    assert said(pairs, text, None) == said(Samples.of(list(pairs)), text, None) == {"long texts": (True, expected)}
    text.config.max_length = 40
    assert said(pairs, text, None)["long texts"][0] is False


def test_no_text_of_any_script_is_longer_than_its_bytes_say():
    draw = random.Random(2)
    characters = "ab ,.éÅﬁ각東İßΐ🏄\u0345\u1fa7"
    texts = ["".join(draw.choices(characters, k=draw.randint(1, 12))) for _ in range(400)]
    text = text_processor(texts, max_length=8)
    long = sum(len(text._tokenizer.encode(value).ids) > 8 for value in texts)
    assert said(samples_of(texts), text, None)["long texts"][1].startswith(f"{long} of 400 ") and 50 < long < 350


def test_empty_texts_are_counted():
    assert said(samples_of(["a", "", " \t ", "\u3000"]), None, None) == {"empty texts": (True, "3 of 4 have no word")}


def test_coverage_and_the_best_attainable_score():
    answers = registry.build("processor", "answers", {"min_occurrences": 1}, "processors.answers.params")
    answers.fit(["yes", "no", "t-shirt"])
    given = [["yes"] * 10, ["maybe"] * 10, ["no"] * 2 + ["maybe"] * 8, [""] * 10, ["t-shirt"] * 10, []]
    found = said(samples_of(["q"] * 6, given), None, answers)
    # 1, 0, 0.6, 0 and 1 of five questions with answers
    assert found["answer vocabulary"] == (
        True,
        "3 answers; 60.0 % of 5 questions have one of them, and the best prediction earns 52.0 %; "
        "lower processors.answers.params.min_occurrences",
    )
    assert found["empty answers"] == (True, "1 of 5 questions have no answer with a word")
    assert found["answers"] == (True, "1 of 6 questions have none")
    good = said(samples_of(["q"] * 5, [["yes"], ["no"], ["no"], ["yes"], ["maybe"]]), None, answers)
    assert good == {
        "answer vocabulary": (False, "3 answers; 80.0 % of 5 questions have one of them, and the best prediction earns 80.0 %")
    }
    assert said(samples_of(["q"]), None, answers) == {}  # a split without answers


def test_images_without_captions_are_named_from_the_cache_too(tmp_path):
    write(tmp_path, [record(0, "val", ["a"]), record(1, "val", ["", " "]), record(2, "val", []), record(3, "train", [])])
    for _ in range(2):
        samples = official("flickr30k", tmp_path, tmp_path / "cache").samples("val")
        detail = (
            "2 are left out, of retrieval's gallery too: flickr30k/flickr30k-images/101.jpg, flickr30k/flickr30k-images/102.jpg"
        )
        assert said(samples, None, None) == {"images without texts": (True, detail)}


def test_images_without_captions_of_coco(tmp_path):
    val = [(42, "val", ["a bus"]), (43, "val", [" "]), (73, "restval", [""])]
    test_coco.write_captions(tmp_path, "train2014", test_coco.TRAIN)
    test_coco.write_captions(tmp_path, "val2014", val)
    test_coco.write_karpathy(tmp_path, test_coco.TRAIN + val)
    source = official("coco", tmp_path)
    assert list(source.samples("val").left_out) == ["coco/val2014/COCO_val2014_000000000043.jpg"]
    assert list(source.samples("train").left_out) == ["coco/val2014/COCO_val2014_000000000073.jpg"]


def test_a_run_tells_it_before_training(vqa2_root, caplog):
    parts_of = official("vqa2", vqa2_root)
    data = {split: Mixture.build({"vqa2": parts_of}, split) for split in ("train", "val")}
    data["test"] = data["train"]
    answers = registry.build("processor", "answers", {"min_occurrences": 1}, "processors.answers.params")
    answers.fit(["no", "yes"])
    console = Console(record=True, width=300)
    processors = {"text": text_processor([sample.text for sample in data["train"]]), "answers": answers}
    processes = SimpleNamespace(on_main=lambda function: function())
    job = SimpleNamespace(console=console, processes=processes)
    parts = SimpleNamespace(data=SimpleNamespace(splits=data), processors=processors, job=job)
    data_remarks.tell_survey(parts)
    assert "test/vqa2: images of train: 12 of 12 images are the train split's too" in caplog.text
    assert "val/vqa2: images of train" not in caplog.text and "train/vqa2: images of train" not in caplog.text
    assert "train/vqa2: long texts: " in caplog.text and "val/vqa2: long texts: " in caplog.text
    assert (
        "train/vqa2: answer vocabulary: 2 answers; " in caplog.text and "; lower processors.answers.params.min" in caplog.text
    )
    answers.fit(sample.answer for sample in data["train"])
    data_remarks.tell_survey(parts)
    assert "train/vqa2: answer vocabulary: " in console.export_text()


def test_images_that_train_has_too_are_told(vqa2_root):
    train, val = (official("vqa2", vqa2_root).samples(split) for split in ("train", "val"))
    assert [*seen_in_training(val, train.image_names())] == [] == [*seen_in_training(val, set())]
    (remark,) = seen_in_training(
        val, train.image_names() | val.image_names()
    )  # a fine-tuning on trainval, where use.val was forgotten
    assert remark.is_warning and remark.detail.startswith("5 of 5 images are the train split's too, ")
    assert f"{vqa2_root}/coco/val2014/COCO_val2014_000000000900.jpg, " in remark.detail


def test_check_shows_vocabulary_and_texts(own_vqa2_root, tiny_config, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    command = ["check", f"config={tiny_config}", f"env.data_dir={own_vqa2_root}", "env.cache_dir=null"]
    limit = "processors.text.params.max_length=5"
    data_cli.main([*command, limit])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert (
        "answer vocabulary" in out and "long texts" in out and out.endswith("4 of 16 checks failed, 2 with a warning")
    )  # the published counts
    assert "36 of 36 are longer than processors.text.params.max_length=5 tokens" in out
    assert "6 answers; 100.0 % of 36 questions" in out
    assert "images of train" not in out
    data_cli.main([*command, limit, "dataset_config.vqa2.use.val=train"])
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "images of train warning 12 of 12 images are the train split's too" in out
    assert data_cli.main([*command, "processors.answers.params.min_occurrences=99"]) == 2
    assert "no answer occurs so often" in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("answer", "message"), [("yes", "the vocabulary is the single answer 'yes'"), ("", "has an answer to count")]
)
def test_a_vocabulary_of_one_answer_or_none_is_refused(own_vqa2_root, tiny_config, capsys, monkeypatch, answer, message):
    monkeypatch.setenv("COLUMNS", "300")

    def same(content):
        for row in content["annotations"]:
            row["multiple_choice_answer"] = answer
            for given in row["answers"]:
                given["answer"] = answer

    for split in ("train", "val"):
        damage(own_vqa2_root / f"vqa2/v2_mscoco_{split}2014_annotations.json", same)
    assert data_cli.main(["check", f"config={tiny_config}", f"env.data_dir={own_vqa2_root}", "env.cache_dir=null"]) == 2
    assert message in " ".join(capsys.readouterr().out.replace("│", " ").split())
