"""`pixelbert-predict`: what it prints, files of questions, and what is wrong with either."""

import copy
import csv
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

import pixelbert_plugin
from pixelbert_plugin.asking.options import FORMS, PredictConfig
from pixelbert_plugin.commands import predict
from pixelbert_plugin.config.files import command_line
from pixelbert_plugin.registry.schema import merge

QUESTIONS = ["is the disc red or blue", "what color is it", "how many discs are there"]


@pytest.fixture
def loaded(models, tmp_path, monkeypatch):
    """Lets the command have this task's model, whatever checkpoint it is told; a file stands for that."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")

    def choose(task):
        model = copy.copy(models[task])
        model.path = tmp_path / "model.safetensors"
        monkeypatch.setattr(predict, "loaded", lambda config: model)
        return model

    monkeypatch.chdir(tmp_path)
    return choose


def run(capsys, *arguments: str, status: int = 0) -> str:
    found = predict.main(["checkpoint=model.safetensors", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert found == status, err
    return err if status == 2 else out


def rows(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_one_question_as_json_and_as_a_table(loaded, pictures, capsys):
    answers = loaded("vqa").answer(pictures[0], QUESTIONS[0], top_k=2).answers
    asked = [f"image={pictures[0]}", f"question={QUESTIONS[0]}", "top_k=2"]
    found = json.loads(run(capsys, *asked, "format=json"))
    assert found == [{"answer": answer.text, "probability": answer.probability} for answer in answers]
    table = run(capsys, *asked)
    assert table.splitlines()[0] == QUESTIONS[0] and "answer" in table.splitlines()[1] and len(table.splitlines()) == 5
    assert answers[0].text in table and f"{100 * answers[0].probability:.2f} %" in table


def test_each_of_the_other_questions(loaded, pictures, tmp_path, capsys):
    compared = loaded("nlvr2").compare(pictures[0], pictures[1], "a green disc")
    asked = [f"left={pictures[0]}", f"right={pictures[1]}", "statement=a green disc", "format=json"]
    assert json.loads(run(capsys, *asked)) == [{"label": compared.label, "probability": compared.probability}]

    model = loaded("retrieval")
    found = model.search(pictures[0].parent, "a green disc", top_k=3).found
    printed = json.loads(run(capsys, f"images={pictures[0].parent}", "text=a green disc", "top_k=3", "format=json"))
    assert [(row["image"], row["score"]) for row in printed] == [(each.image, each.score) for each in found]

    (tmp_path / "texts.txt").write_text("\n".join(QUESTIONS) + "\n\n")
    best = sorted(model.match(pictures[0], QUESTIONS), key=lambda match: -match.score)
    for texts in (tmp_path / "texts.txt", f"[{', '.join(QUESTIONS)}]"):
        printed = json.loads(run(capsys, f"image={pictures[0]}", f"texts={texts}", "format=json"))
        assert [(row["text"], row["score"]) for row in printed] == [(match.text, match.score) for match in best]
    assert "fill: the task 'retrieval' of" in run(capsys, f"image={pictures[0]}", "text=a [MASK]", "ask=fill", status=2)
    (alone,) = json.loads(run(capsys, f"image={pictures[0]}", f"text={QUESTIONS[1]}", "format=json"))
    assert alone["score"] == pytest.approx(model.match(pictures[0], QUESTIONS[1]).score, abs=1e-4)

    filled = loaded("pretrain").fill(pictures[0], "a [MASK] [MASK]", top_k=2)
    printed = json.loads(run(capsys, f"image={pictures[0]}", "text=a [MASK] [MASK]", "top_k=2", "format=json"))
    assert [(row["mask"], row["word"]) for row in printed] == [(1 + n // 2, filled.masks[n // 2][n % 2].word) for n in range(4)]


def write_questions(path, pictures, count=10):
    """Rows of which the third and the eighth cannot be asked; images are named from the file's folder."""
    shutil.copytree(pictures[0].parent, path.parent / "pictures", dirs_exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "question", "answer"])
        for number in range(1, count + 1):
            image = f"pictures/{'nowhere' if number == 3 else number % 7}.png"
            writer.writerow([f"q{number}", image, "" if number == 8 else QUESTIONS[number % 3], "told, by\nhand"])
    return path


def test_a_picture_says_where_the_answer_comes_from(loaded, pictures, tmp_path, capsys):
    from PIL import Image

    model = loaded("vqa")
    asked = [f"image={pictures[0]}", f"question={QUESTIONS[0]}", "format=json"]
    plain = run(capsys, *asked)
    assert run(capsys, *asked, "explain=why.png") == plain  # the answers are those without it
    expected = model.explain(pictures[0], QUESTIONS[0]).sheet()
    with Image.open("why.png") as found:
        assert found.size == expected.size and found.tobytes() == expected.tobytes()
    assert "why.png': is there already; name another file, or overwrite=true" in run(
        capsys, *asked, "explain=why.png", status=2
    )
    run(capsys, *asked, "explain=why.png", "overwrite=true", "method=rollout", "answer=no")
    other = model.explain(pictures[0], QUESTIONS[0], "rollout", "no").sheet()
    with Image.open("why.png") as found:
        assert found.tobytes() == other.tobytes() != expected.tobytes()
    assert "answer='nein': is no answer of this model" in run(capsys, *asked, "explain=no.png", "answer=nein", status=2)
    assert not (tmp_path / "no.png").exists()


def test_pictures_of_the_other_questions(loaded, pictures, tmp_path, capsys):
    from PIL import Image

    given = {
        "retrieval": [f"image={pictures[0]}", "texts=a disc"],
        "nlvr2": [f"left={pictures[0]}", f"right={pictures[1]}", "statement=both are red"],
        "pretrain": [f"image={pictures[0]}", "text=a [MASK] disc"],
    }
    for task, arguments in given.items():
        model = loaded(task)
        run(capsys, *arguments, f"explain={task}.png")
        images = pictures[:2] if task == "nlvr2" else pictures[0]
        expected = model.explain(images, arguments[-1].split("=")[1]).sheet()
        with Image.open(f"{task}.png") as found:
            assert found.tobytes() == expected.tobytes()


def test_a_file_of_questions(loaded, pictures, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    model, source = loaded("vqa"), write_questions(tmp_path / "data/questions.csv", pictures)
    output = run(capsys, f"input={source}", "output=answers.jsonl", "batch_size=4", "top_k=2")
    assert output == "answers.jsonl: 8 of 10 rows answered; 2 could not be asked, listed in answers.jsonl.errors.jsonl\n"
    found = rows(tmp_path / "answers.jsonl")
    assert [row["row"] for row in found] == [1, 2, 4, 5, 6, 7, 9, 10]
    for row in found:
        answers = model.answer(tmp_path / "data" / row["image"], row["question"], top_k=2).answers
        assert (row["id"], row["answer"]) == (f"q{row['row']}", "told, by\nhand")
        assert [each["answer"] for each in row["predicted"]] == [answer.text for answer in answers]
        probabilities = [answer.probability for answer in answers]
        assert [each["probability"] for each in row["predicted"]] == pytest.approx(probabilities, abs=1e-6)
    bad = rows(tmp_path / "answers.jsonl.errors.jsonl")
    assert [row["row"] for row in bad] == [3, 8] and "nowhere.png: No such file" in bad[0]["reason"]
    assert bad[1]["reason"] == "question='': is empty"

    run(capsys, f"input={source}", "output=answers.csv", "batch_size=4", "top_k=2")
    with open("answers.csv", newline="") as file:
        as_csv = list(csv.DictReader(file))
    assert list(as_csv[0]) == (
        "row id image question answer predicted_answer predicted_probability predicted_answer_2 predicted_probability_2".split()
    )
    for one, other in zip(as_csv, found, strict=True):
        assert one["answer"] == other["answer"] and one["predicted_answer_2"] == other["predicted"][1]["answer"]
        assert float(one["predicted_probability"]) == other["predicted"][0]["probability"]


def test_other_forms_of_files_and_questions(loaded, pictures, tmp_path, capsys):
    folder = pictures[0].parent
    statements = [{"left": "0.png", "right": f"{n}.png", "statement": "a green disc", "label": n} for n in (1, 2)]
    statements.insert(1, {"left": "0.png", "right": 5, "statement": "a green disc"})
    lines = "\n".join([*map(json.dumps, statements), "{no JSON", '["no object"]', '{"left": NaN}', ""])
    (tmp_path / "statements.jsonl").write_text(lines)
    model = loaded("nlvr2")
    printed = run(capsys, "input=statements.jsonl", f"images={folder}", "output=labels.jsonl")
    assert printed.startswith("labels.jsonl: 2 of 6 rows answered; 4 could not be asked")
    found = rows(tmp_path / "labels.jsonl")
    compared = model.compare(pictures[0], pictures[1:3], "a green disc")
    assert [row["predicted"][0]["label"] for row in found] == [each.label for each in compared]
    assert [row["label"] for row in found] == [1, 2]
    reasons = [row["reason"] for row in rows(tmp_path / "labels.jsonl.errors.jsonl")]
    assert reasons[0] == "right=5: must be the path of an image" and reasons[1].startswith("is no JSON (")
    assert reasons[2:] == ["is no object, {…}", "is no JSON (NaN is no number of JSON)"]

    (tmp_path / "texts.json").write_text(json.dumps([{"text": text} for text in QUESTIONS]))
    model = loaded("retrieval")
    assert "images: is not set; name the folder that is searched" in run(
        capsys, "input=texts.json", "output=found.jsonl", status=2
    )
    run(capsys, "input=texts.json", f"images={folder}", "output=found.jsonl", "top_k=3")
    for row, result in zip(rows(tmp_path / "found.jsonl"), model.search(folder, QUESTIONS, top_k=3), strict=True):
        assert [each["image"] for each in row["predicted"]] == [each.image for each in result.found]

    (tmp_path / "pairs.csv").write_text("image,text\n0.png,a [MASK] disc\n1.png,a disc\n")
    model = loaded("pretrain")
    asked = ["input=pairs.csv", f"images={folder}"]
    assert "ask: rows with image, text may ask match or fill; say which, as ask=match" in run(
        capsys, *asked, "output=pairs.jsonl", status=2
    )
    run(capsys, *asked, "output=pairs.jsonl", "ask=fill", "top_k=1")
    (row,) = rows(tmp_path / "pairs.jsonl")
    (bad,) = rows(tmp_path / "pairs.jsonl.errors.jsonl")
    assert bad["row"] == 2 and bad["reason"].startswith("text='a disc': has no [MASK]")
    assert row["predicted"][0]["word"] == model.fill(pictures[0], "a [MASK] disc").best.word
    run(capsys, *asked, "output=pairs.csv2.csv", "ask=match")
    assert (tmp_path / "pairs.csv2.csv").read_text().splitlines()[0] == "row,image,text,predicted_probability,predicted_score"


def test_killed_anywhere_the_same_command_gives_the_same_bytes(loaded, pictures, tmp_path, capsys, monkeypatch):
    """As a kill leaves the file of what is done: cut off after each line, and within lines."""
    model = loaded("vqa")
    source = write_questions(tmp_path / "questions.csv", pictures)
    asked = [f"input={source}", "output=answers.jsonl", "batch_size=4"]
    finish = predict_journal().finish
    monkeypatch.setattr(predict_journal(), "finish", lambda self: None)
    run(capsys, *asked)
    partial = tmp_path / "answers.jsonl.partial"
    journal = partial.read_bytes()
    monkeypatch.setattr(predict_journal(), "finish", finish)
    run(capsys, *asked)
    whole = [(tmp_path / name).read_bytes() for name in ("answers.jsonl", "answers.jsonl.errors.jsonl")]
    assert len(journal.splitlines()) == 11 and not partial.exists()
    ends = [len(b"".join(journal.splitlines(keepends=True)[:count])) for count in range(12)]
    calls, own = [], model.batch
    monkeypatch.setattr(model, "batch", lambda pairs, *more: calls.append(len(pairs)) or own(pairs, *more), raising=False)
    for end in [*(ends[count] for count in (0, 1, 2, 5, 6, 10, 11)), 5, ends[3] + 1, ends[6] - 1, ends[11] - 1]:
        for name in ("answers.jsonl", "answers.jsonl.errors.jsonl", "answers.jsonl.meta.json"):
            (tmp_path / name).unlink()
        partial.write_bytes(journal[:end])
        calls.clear()
        run(capsys, *asked)
        assert [(tmp_path / name).read_bytes() for name in ("answers.jsonl", "answers.jsonl.errors.jsonl")] == whole, end
        done = max(0, journal[:end].count(b"\n") - 1)
        # nothing that was done is asked again, but for rows whose batch was not done
        assert calls == ([3, 3, 2][done // 4 :] if done < 10 else [])


def predict_journal():
    from pixelbert_plugin.asking.journal import Journal

    return Journal


def test_what_is_done_is_known_and_nothing_of_others_is_lost(loaded, pictures, tmp_path, capsys, monkeypatch):
    loaded("vqa")
    source, target = write_questions(tmp_path / "questions.csv", pictures), tmp_path / "answers.jsonl"
    asked = [f"input={source}", f"output={target}", "batch_size=4"]
    run(capsys, *asked)
    first = target.read_bytes()
    assert "8 of 10 rows answered" in (told := run(capsys, *asked)) and "nothing is left to do" in told
    assert f"output='{target}': holds answers for another top_k (5, now 2); choose another file, or overwrite=true" in run(
        capsys, *asked, "top_k=2", status=2
    )
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert "holds answers for another checkpoint; choose" in run(capsys, *asked, status=2)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    write_questions(source, pictures, count=11)
    assert "holds answers for another input; choose" in run(capsys, *asked, status=2)
    assert target.read_bytes() == first
    run(capsys, *asked, "overwrite=true")
    assert len(rows(target)) == 9
    target.write_bytes(first)
    assert "is not as it was written; choose another file, or overwrite=true" in run(capsys, *asked, status=2)
    (tmp_path / "mine.csv").write_text("my work")
    assert "mine.csv': is there already, and not of this command" in run(capsys, *asked[:1], "output=mine.csv", status=2)
    assert (tmp_path / "mine.csv").read_text() == "my work"

    monkeypatch.setattr(predict_journal(), "finish", lambda self: None)
    run(capsys, *asked[:1], "output=half.jsonl")
    assert "output='half.jsonl': was begun with another top_k (5, now 3);" in run(
        capsys, *asked[:1], "output=half.jsonl", "top_k=3", status=2
    )
    with predict_journal()(tmp_path / "half.jsonl", {}, True):
        assert "another process writes it now" in run(capsys, *asked[:1], "output=half.jsonl", status=2)


def test_no_row_at_all_is_an_error(loaded, tmp_path, capsys):
    loaded("vqa")
    (tmp_path / "q.csv").write_text("image,question\nnowhere.png,what is it\n")
    assert predict.main(["checkpoint=x", "input=q.csv", "output=a.jsonl"]) == 2
    assert "0 of 1 rows answered; 1 could not be asked" in capsys.readouterr().out
    assert (tmp_path / "a.jsonl").read_text() == "" and len(rows(tmp_path / "a.jsonl.errors.jsonl")) == 1


def test_images_that_the_model_cannot_take_end_nothing(loaded, pictures, tmp_path, capsys, monkeypatch):
    """The others of its batch are asked all the same."""
    from pixelbert_plugin.errors import UserError

    model, source = loaded("vqa"), write_questions(tmp_path / "questions.csv", pictures, count=2)
    own = model.output

    def output(batch):
        if QUESTIONS[2] in [sample.text for sample in batch.samples]:
            raise UserError("too large a grid")
        return own(batch)

    monkeypatch.setattr(model, "output", output, raising=False)
    assert "1 of 2 rows answered" in run(capsys, f"input={source}", "output=a.jsonl")
    assert rows(tmp_path / "a.jsonl.errors.jsonl") == [{"row": 2, "reason": "too large a grid"}]


def test_texts_that_are_cut_are_told_once(loaded, pictures, tmp_path, capsys):
    loaded("vqa")
    shutil.copytree(pictures[0].parent, tmp_path / "pictures")
    long = "is the disc red or blue " * 4
    (tmp_path / "q.csv").write_text("image,question\n" + f"pictures/1.png,{long}\n" * 3 + "pictures/2.png,what color is it\n")
    assert predict.main(["checkpoint=x", "input=q.csv", "output=a.jsonl", "batch_size=1"]) == 0
    assert capsys.readouterr().err.count("3 text(s) are longer than 12 tokens and were cut, as in training") == 1


PICTURE = "image=0.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["checkpoint=", PICTURE, "question=x"], "checkpoint: None is invalid: must be text"),  # a variable that is not set
        (["checkpoint=c", "qestion=x"], "qestion: unknown key; did you mean question?"),
        (["checkpoint=c", PICTURE, "question"], "'question': not understood; options are given as key=value"),
        (["checkpoint=c", "--top_k=3"], "--top_k=3: unknown flag; keys are written without dashes: top_k=3"),
        (["checkpoint=c", "config=x.yaml"], "config: unknown key; the checkpoint has its configuration: checkpoint=PATH"),
        (["checkpoint=c"], "a question has the keys image=… question=…; image=… texts=…; "),
        (["checkpoint=c", PICTURE], "or is in a file: input=FILE output=FILE; given are image"),
        (["checkpoint=c", PICTURE, "question=a", "text=b"], "given are image and question and text"),
        (["checkpoint=c", PICTURE, "question=a", "ask=fill"], "ask: 'fill' needs image and text; given are image and question"),
        (["checkpoint=c", PICTURE, "question=a", "output=a.csv"], "output: is for a file of questions; name it by input=FILE"),
        (["checkpoint=c", PICTURE, "question=a", "top_k=0"], "top_k: 0 is invalid: must be at least 1"),
        (["checkpoint=c", PICTURE, "question=a", "top_k=many"], "top_k: 'many' is invalid: must be a whole number"),
        (["checkpoint=c", PICTURE, "question=a", "format=xml"], "format: 'xml' is invalid: must be table or json"),
        (["checkpoint=c", PICTURE, "texts=[]"], "texts: [] is invalid: is empty; give one or more"),
        (
            ["checkpoint=c", "input=q.txt", "output=a.csv"],
            "input: 'q.txt' is invalid: must be a file that ends in .csv",
        ),
        (
            ["checkpoint=c", "input=q.csv", "output=a.txt"],
            "output: 'a.txt' is invalid: must be a file that ends in .jsonl",
        ),
        (["checkpoint=c", "input=q.csv"], "output: is not set; name the file for the answers, such as output=answers.jsonl"),
        (["checkpoint=c", "input=no.csv", "output=a.csv"], "input: 'no.csv': no such file"),
        (["checkpoint=c", "input=q.csv", "output=no/a.csv"], "output: 'no/a.csv': there is no folder 'no'; name a file"),
        (["checkpoint=c", "input=q.csv", "output=q.csv"], "output: 'q.csv': is the input; name another file"),
        (["checkpoint=c", "input=q.csv", "output=a.csv", "images=no"], "images: 'no': no such folder"),
        (
            ["checkpoint=c", "input=q.csv", "output=a.csv", "question=a"],
            "question: is in the rows of input='q.csv'; leave",
        ),
        (
            ["checkpoint=c", PICTURE, "question=a", "method=x"],
            "method: 'x' is invalid: says what explain=PICTURE shows, which is",
        ),
        (
            ["checkpoint=c", "images=.", "text=a", "explain=a.png"],
            "explain: is for an answer about one image, or two; a search",
        ),
        (
            ["checkpoint=c", "input=q.csv", "output=a.csv", "explain=a.png"],
            "explain: is for one question, not for a file of them",
        ),
        (["checkpoint=c", PICTURE, "question=a", "explain=no/a.png"], "explain='no/a.png': there is no folder 'no'"),
        (["checkpoint=c", PICTURE, "question=a", "explain=a.pdf"], "explain='a.pdf': must be a file that ends in .png, .jpg"),
        (["checkpoint=c", PICTURE, "texts=[a, b]", "explain=a.png"], "explain: is for one text, not for 2 (texts)"),
        (["checkpoint=c", "input=empty.csv", "output=a.csv"], "input='empty.csv': holds no rows"),
        (["checkpoint=c", "input=header.csv", "output=a.csv"], "input='header.csv': holds no rows"),
        (["checkpoint=c", "input=twice.csv", "output=a.csv"], "input='twice.csv': its column 'image' is duplicated"),
        (["checkpoint=c", "input=latin.csv", "output=a.csv"], "input='latin.csv': is no UTF-8 text ("),
        (["checkpoint=c", "input=open.csv", "output=a.csv"], "input='open.csv': cannot be read (unexpected end of data)"),
        (["checkpoint=c", "input=object.json", "output=a.csv"], "input='object.json': must hold a list of objects"),
        (["checkpoint=c", "input=broken.json", "output=a.csv"], "input='broken.json': is no JSON ("),
        (["checkpoint=c", "input=q.csv", "output=a.csv"], "checkpoint='c': no such checkpoint folder, and no exported file"),
    ],
)
def test_a_mistake_is_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.csv").write_text("image,question\n0.png,what\n")
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "header.csv").write_text("image,question\n")
    (tmp_path / "twice.csv").write_text("image,image\n")
    (tmp_path / "latin.csv").write_bytes("image,question\n0.png,où\n".encode("latin-1"))
    (tmp_path / "open.csv").write_text('image,question\n0.png,"what\n')
    (tmp_path / "object.json").write_text("{}")
    (tmp_path / "broken.json").write_text("[")
    assert predict.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("image,qestion", "its columns are 'image', 'qestion'; they must be one of: image, question; image, text; text; left,"),
        ("image,question,row", "has a column 'row', which the answers will have; rename it"),
        ("image,question,predicted_answer", "has a column 'predicted_answer', which the answers will have"),
        ("left,right,statement", "compare: the task 'vqa' of"),
        ("text", "search: the task 'vqa' of"),
    ],
)
def test_columns_that_ask_nothing(loaded, tmp_path, capsys, columns, message):
    loaded("vqa")
    (tmp_path / "q.csv").write_text(f"{columns}\n{columns}\n")
    assert message in run(capsys, "input=q.csv", "output=a.csv", status=2)


def test_what_is_asked_must_be_in_the_columns(loaded, tmp_path, capsys):
    loaded("vqa")
    (tmp_path / "q.csv").write_text("image,qestion\na,b\n")
    error = run(capsys, "input=q.csv", "output=a.csv", "ask=answer", status=2)
    assert "input='q.csv': ask=answer needs the column 'question'; did you mean qestion?" in error


def commands() -> list[str]:
    """Those of the documents and of --help."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/asking.md")] + [predict.EPILOG]
    found = [line.strip() for text in texts for line in text.splitlines() if line.strip().startswith("pixelbert-predict ")]
    return sorted({line for line in found if "PATH" not in line})


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_documents_are_without_a_mistake(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "questions.csv").write_text("image,question\n")
    config = merge(PredictConfig, command_line(shlex.split(command)[1:]))
    assert config.files() if config.input else config.way() in FORMS


def test_the_document_says_what_can_be_asked(models, pictures, monkeypatch, capsys):
    """Its Python, word for word, but for the checkpoints and pictures."""
    text = (ROOT / "docs/asking.md").read_text(encoding="utf-8")
    asked = {"save/vqa2": "vqa", "save/coco_retrieval": "retrieval"}
    monkeypatch.setattr(pixelbert_plugin, "load", lambda path, **options: models[asked[path]], raising=False)
    first, second = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    exec(first.replace("cat.jpg", str(pictures[0])), {})
    assert capsys.readouterr().out == f"{models['vqa'].answer(pictures[0], 'what is it?').best.text}\n"
    exec(second.replace('"photos"', repr(str(pictures[0].parent))), {})
    best = [models["retrieval"].search(pictures, text).best for text in ("a dog on a beach", "two people at a table")]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[2] == "()" and all(found.image in line for found, line in zip(best, lines, strict=False))


def test_help_is_quick_and_says_what_there_is():
    code = "import sys; from pixelbert_plugin.commands import predict; predict.parser().print_help()"
    code += "; print({*sys.modules} & {'torch'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.endswith("set()\n") and "pixelbert-predict checkpoint=save/vqa2 image=cat.jpg" in done.stdout
    assert all(f"{field.name}=" in predict.EPILOG for field in dataclasses.fields(PredictConfig))
