"""Whole runs on a tiny VQA 2.0, through the command line's entry."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import write_config

from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.metrics.vqa import vqa_accuracy
from pixelbert_plugin.training.run_folder import RunFolder


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory, vqa2_root) -> Path:
    """The save folder of a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    config = write_config(folder / "tiny.yaml", vqa2_root, folder / "run")
    assert run(f"config={config}", "evaluation.num_pictures=8") == 0
    return folder / "run"


def test_folder_of_a_run(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {*"config.yaml log.jsonl evaluations.jsonl results.json predictions checkpoints tensorboard .lock".split()}
    resolved = yaml.safe_load((finished / "config.yaml").read_text())
    assert resolved["training"]["batch_size"] == 8 and resolved["optimizer"]["cnn"]["params"]["momentum"] == 0.9
    results = json.loads((finished / "results.json").read_text())
    assert {"val/vqa2/accuracy", "val/vqa2/question_prior", "training_seconds"} <= results.keys()
    assert {"val/vqa2/accuracy[answer_type=yes/no]", "val/vqa2/accuracy[question_type=how many]"} <= results.keys()


def test_log_has_one_object_per_logged_update(finished):
    records = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [record["update"] for record in records] == [1, 2, 3, 4]
    keys = {"update", "samples", "epoch", "loss", "losses", "lr", "grad_norm", "samples_per_second", "precision"}
    keys |= {"grad_norms", "data_seconds"}
    for record in records:
        both = record["grad_norms"]
        assert record["grad_norm"] == pytest.approx((both["cnn"] ** 2 + both["transformer"] ** 2) ** 0.5)
    assert all(record.keys() == keys for record in records)
    assert records[-1]["samples"] == 32 and records[-1]["epoch"] == pytest.approx(32 / 36)
    assert records[0]["loss"] == pytest.approx(sum(records[0]["losses"].values()))
    assert records[0]["lr"] == {"cnn": 0.01, "transformer": 0.001}


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_bit(finished, tmp_path, vqa2_root):
    """Dropout and training batch norms included; its checkpoint is resumed without."""
    config = write_config(tmp_path / "tiny.yaml", vqa2_root, tmp_path / "run")
    assert run(f"config={config}", "training.gradient_checkpointing=true", "training.max_updates=2") == 0
    assert run(f"config={config}", "checkpoint.resume=true") == 0
    records = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (finished, tmp_path / "run")
    ]
    for name in ("losses", "grad_norm"):
        assert [record[name] for record in records[0]] == [record[name] for record in records[1]] and len(records[1]) == 4


def test_predictions_are_the_official_result_file_and_give_the_accuracy(finished, vqa2_root):
    rows = json.loads((finished / "predictions/val_vqa2.json").read_text())
    annotations = json.loads((vqa2_root / "vqa2/v2_mscoco_val2014_annotations.json").read_text())["annotations"]
    assert all(row.keys() == {"question_id", "answer"} for row in rows)
    assert [row["question_id"] for row in rows] == [item["question_id"] for item in annotations]
    scores, numbers = [], []
    for row, item in zip(rows, annotations, strict=True):
        score = vqa_accuracy(row["answer"], tuple(answer["answer"] for answer in item["answers"]))
        scores.append(score)
        if item["answer_type"] == "number":
            numbers.append(score)
    results = json.loads((finished / "results.json").read_text())
    assert results["val/vqa2/accuracy"] == pytest.approx(sum(scores) / len(scores))
    assert results["val/vqa2/accuracy[answer_type=number]"] == pytest.approx(sum(numbers) / len(numbers))


def test_question_prior_is_the_most_frequent_training_answer(finished, vqa2_root):
    """Worked out here from the official files: how often each question's commonest training answer is right."""
    folder = vqa2_root / "vqa2"

    def read(split):
        questions = json.loads((folder / f"v2_OpenEnded_mscoco_{split}2014_questions.json").read_text())["questions"]
        annotations = json.loads((folder / f"v2_mscoco_{split}2014_annotations.json").read_text())["annotations"]
        return list(zip(questions, annotations, strict=True))

    given: dict[str, list[str]] = {}
    for question, annotation in read("train"):
        given.setdefault(question["question"], []).append(annotation["multiple_choice_answer"])
    scores = []
    for question, annotation in read("val"):
        answers = given[question["question"]]
        guess = min(set(answers), key=lambda answer: (-answers.count(answer), answer))
        scores.append(vqa_accuracy(guess, tuple(answer["answer"] for answer in annotation["answers"])))
    results = json.loads((finished / "results.json").read_text())
    assert results["val/vqa2/question_prior"] == pytest.approx(sum(scores) / len(scores))


def test_tensorboard_holds_everything(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    expected = {
        "train/loss",
        "train/losses/answers",
        "train/lr/cnn",
        "train/lr/transformer",
        "train/grad_norm",
        "train/grad_norms/cnn",
        "train/grad_norms/transformer",
        "train/data_seconds",
        "train/samples_per_second",
        "padding/text",
        "padding/image",
        "val/vqa2/accuracy",
        "val/vqa2/question_prior",
    }
    assert expected <= scalars
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("val/vqa2/accuracy")] == [2, 4]
    log = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(
        [record["loss"] for record in log], rel=1e-6
    )
    assert {"val/vqa2/wrong", "val/vqa2/explanations"} <= set(events.Tags()["images"])
    picture = events.Images("val/vqa2/explanations")[0]
    assert picture.width > 500 and len(events.Images("val/vqa2/explanations")) == 2
    evaluated = [json.loads(line) for line in (finished / "evaluations.jsonl").read_text().splitlines()]
    losses = [record["val/vqa2/loss"] for record in evaluated]
    assert [event.value for event in events.Scalars("val/vqa2/loss")] == pytest.approx(losses, rel=1e-6)
    final = json.loads((finished / "results.json").read_text())["val/vqa2/accuracy"]
    assert [(event.step, event.value) for event in events.Scalars("final/val/vqa2/accuracy")] == [(4, pytest.approx(final))]
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "num_sampled_pixels" in text and "batch_size: 8" in text
    assert any(tag.startswith("_hparams_") for tag in events.summary_metadata)


def test_the_picture_shows_different_images():
    from pixelbert_plugin.tasks.base import Result
    from pixelbert_plugin.training.pictures import spread
    from pixelbert_plugin.types import Sample

    def result(image, number):
        return Result(Sample(sample_id=number, image_ids=(image,), images=(Path("x"),), text="?"), "a", "b")

    many = spread([result(number // 5, number) for number in range(100)], 8)
    assert len({shown.sample.image_ids for shown in many}) == len(many) == 8
    assert len(spread([result(0, 0), result(0, 1), result(1, 2)], 8)) == 2


def test_evaluation_alone_gives_the_same_numbers(finished, tmp_path, capsys):
    before = json.loads((finished / "results.json").read_text())
    assert run(f"config={finished / 'config.yaml'}", "run_type=val") == 0
    assert json.loads((finished / "results.json").read_text()) == before
    best = finished / "checkpoints/best"
    arguments = (f"checkpoint.resume_file={best}", f"env.save_dir={tmp_path / 'elsewhere'}", "evaluation.batch_size=4")
    assert run(f"config={finished / 'config.yaml'}", "run_type=val", *arguments) == 0
    again = json.loads((tmp_path / "elsewhere/results.json").read_text())
    assert again["val/vqa2/accuracy"] == before["val/vqa2/accuracy"]
    out = capsys.readouterr().out
    assert "tensorboard --logdir" in out and "question_prior" in out


def test_another_checkpoint_does_not_replace_the_figures_of_a_run(finished, tmp_path, capsys):
    """Its best one may be named in its own folder; any other is evaluated into another folder."""
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    command = (f"config={finished / 'config.yaml'}", "run_type=val")
    best = (finished / "checkpoints/best").resolve()
    assert run(*command, f"checkpoint.resume_file={best}") == 0
    other = tmp_path / "other"
    shutil.copytree(best, other)
    assert run(*command, f"checkpoint.resume_file={other}") == 2
    assert "holds a run, whose own results and predictions would be replaced; choose another env" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    assert run(*command, f"checkpoint.resume_file={other}", f"env.save_dir={tmp_path / 'x'}") == 0


def test_figures_that_are_replaced_are_named(tmp_path, caplog):
    folder = RunFolder(tmp_path)
    caplog.set_level("INFO")
    folder.add_results({"val/a/b": 1.5, "val/a/c": 2, "training_seconds": 3.0})
    folder.add_results({"val/a/b": 1.5, "test/a/b": 2, "training_seconds": 4.0})
    assert not caplog.text
    folder.add_results({"val/a/b": 1.5, "val/a/c": 4})
    assert "results.json: val/a/c was 2 and is 4 now" in caplog.text


def test_an_exported_file_evaluates_and_starts_runs(finished, tmp_path, capsys, vqa2_root):
    file = tmp_path / "elsewhere/tiny.safetensors"
    assert run(f"config={finished / 'config.yaml'}", "--export", str(file)) == 0
    assert capsys.readouterr().out.strip() == str(file) and file.stat().st_size > 1e6
    options = (f"checkpoint.pretrained={file}", f"env.save_dir={tmp_path / 'run'}")
    assert run(f"config={finished / 'config.yaml'}", "run_type=val", *options) == 0
    ours, theirs = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "run", finished))
    assert ours.items() <= theirs.items() and "val/vqa2/accuracy" in ours
    options = (f"checkpoint.pretrained={file}", f"env.save_dir={tmp_path / 'further'}", "training.max_updates=1")
    assert run(f"config={finished / 'config.yaml'}", *options) == 0
    assert run(f"config={finished / 'config.yaml'}", "--export", str(tmp_path / "tiny.pt")) == 2
    assert "--export" in capsys.readouterr().err
    before = file.read_bytes()
    assert run(f"config={finished / 'config.yaml'}", "--export", str(file)) == 2 and file.read_bytes() == before
    assert f"--export '{file}': is there already; remove it" in capsys.readouterr().err


def test_an_exported_file_in_bf16_evaluates(finished, tmp_path, capsys):
    full, half = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    assert run(f"config={finished / 'config.yaml'}", "--export", str(full)) == 0
    assert run(f"config={finished / 'config.yaml'}", "--export", str(half), "--dtype", "bf16") == 0
    assert half.stat().st_size < 0.6 * full.stat().st_size
    found = []
    for file in (full, half):
        folder = tmp_path / file.stem
        arguments = (f"config={finished / 'config.yaml'}", f"env.save_dir={folder}", f"checkpoint.resume_file={file}")
        assert run(*arguments, "run_type=val") == 0
        found.append(json.loads((folder / "results.json").read_text()))
    assert found[0].keys() == found[1].keys()
    for arguments in (("--dtype", "bf16"), ("--export", str(tmp_path / "x"), "--format", "hf", "--dtype", "bf16")):
        assert run(f"config={finished / 'config.yaml'}", *arguments) == 2
        assert "--dtype bf16: is of --export FILE.safetensors, which is not given" in capsys.readouterr().err


def test_evaluation_needs_no_training_files(finished, own_vqa2_root, tmp_path, caplog):
    for path in (own_vqa2_root / "vqa2").glob("*train2014*"):
        path.unlink()
    options = (f"env.data_dir={own_vqa2_root}", f"env.save_dir={tmp_path / 'run'}")
    best = f"checkpoint.resume_file={finished / 'checkpoints/best'}"
    assert run(f"config={finished / 'config.yaml'}", "run_type=val", best, *options) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["val/vqa2/accuracy"] == json.loads((finished / "results.json").read_text())["val/vqa2/accuracy"]
    assert "val/vqa2/question_prior" not in results and "the question-only prior is left out" in caplog.text


def test_same_seed_twice_gives_the_same_losses_another_seed_others(finished, tmp_path, vqa2_root):
    losses = []
    for name, seed in (("a", 1), ("b", 2)):
        config = write_config(tmp_path / f"{name}.yaml", vqa2_root, tmp_path / name, run_type="train")
        assert run(f"config={config}", f"training.seed={seed}") == 0
        losses.append([json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()])
    first = [json.loads(line)["loss"] for line in (finished / "log.jsonl").read_text().splitlines()]
    assert losses[0] == first and losses[1] != first


def test_pretrained_weights_start_a_run_and_differing_heads_are_named(finished, tmp_path, vqa2_root, caplog):
    (tmp_path / "answers.txt").write_text("yes\nno\n")
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run", run_type="train")
    arguments = (
        f"checkpoint.pretrained={finished / 'checkpoints/best'}",
        "processors.answers.params.vocabulary=" + str(tmp_path / "answers.txt"),
        "training.max_updates=1",
    )
    assert run(f"config={config}", *arguments) == 0
    assert "of another shape, not loaded" in caplog.text and "heads.answers.layers.3.weight (6, 64) ≠ (2, 64)" in caplog.text
    assert "tensors loaded into PixelBert" in caplog.text


def test_early_stop_ends_the_run_and_the_best_checkpoint_is_evaluated(tmp_path, vqa2_root, caplog):
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run")
    arguments = (
        "training.max_updates=50",
        "training.evaluation_interval=1",
        "training.early_stop.enabled=true",
        "training.early_stop.patience=2",
        "optimizer.cnn.params.lr=0",
        "optimizer.transformer.params.lr=0",
        "model_config.pixelbert.image_encoder.params.norm=frozen",
    )
    assert run(f"config={config}", *arguments) == 0
    records = (tmp_path / "run/log.jsonl").read_text().splitlines()
    assert len(records) == 3  # the first is the best; two without progress
    assert (tmp_path / "run/checkpoints/best").resolve().name == "update_000001"

    def content() -> dict:
        files = (path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.parent.name != "tensorboard")
        return {path: path.read_bytes() for path in files if path.name not in (".lock", "config.yaml")}

    before = content()
    assert run(f"config={config}", *arguments, "checkpoint.resume=true") == 0  # it does not train on
    assert "has ended already, after update 3, by training.early_stop: it is only evaluated" in caplog.text
    assert content() == before


def test_bf16_bucketing_accumulation_sampling_and_clipping_run_together(tmp_path, vqa2_root):
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run")
    arguments = (
        "training.precision=bf16",
        "training.bucket_by_size=true",
        "training.micro_batch_size=3",
        "training.max_grad_norm=1.0",
        "model_config.pixelbert.num_sampled_pixels=2",
        "model_config.pixelbert.position_embedding=2d",
        "task_config.vqa.image_answers_weight=0.5",
        "training.num_workers=1",
    )
    assert run(f"config={config}", *arguments) == 0
    record = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[-1])
    assert record["losses"].keys() == {"answers", "image_answers"} and record["loss"] > 0


def test_it_learns(tmp_path, vqa2_root):
    """Twenty-five updates on twelve images: the training loss falls clearly."""
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run", run_type="train")
    assert run(f"config={config}", "training.max_updates=25", "training.checkpoint_interval=100") == 0
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


def test_a_split_without_answers_gets_predictions_and_no_figures(own_vqa2_root, tmp_path):
    folder = own_vqa2_root / "vqa2"
    questions = json.loads((folder / "v2_OpenEnded_mscoco_val2014_questions.json").read_text())
    (folder / "v2_OpenEnded_mscoco_test2015_questions.json").write_text(json.dumps(questions))
    for path in (own_vqa2_root / "coco/val2014").iterdir():
        target = own_vqa2_root / "coco/test2015" / path.name.replace("val2014", "test2015")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    config = write_config(tmp_path / "c.yaml", own_vqa2_root, tmp_path / "run", run_type="train_test")
    assert run(f"config={config}", "training.max_updates=1") == 0
    rows = json.loads((tmp_path / "run/predictions/test_vqa2.json").read_text())
    assert {row["question_id"] for row in rows} == {question["question_id"] for question in questions["questions"]}
    assert not any(key.startswith("test/") for key in json.loads((tmp_path / "run/results.json").read_text()))


@pytest.mark.slow
def test_a_run_resumed_with_another_batch_size_ends_at_the_same_epoch(tiny_config, tmp_path):
    """Stopped at 2.0 epochs of 36 samples; with other batches it trains to 4.0, neither shorter nor longer."""
    common = (f"config={tiny_config}", "training.max_updates=null", "training.evaluation_interval=null", "run_type=train")
    common += ("training.checkpoint_interval_epochs=1", "checkpoint.resume=true")
    for epochs, batch, updates in ((2, 18, [1, 2, 3, 4]), (3, 36, [5]), (4, 12, [6, 7, 8])):
        assert run(*common, f"training.max_epochs={epochs}", f"training.batch_size={batch}") == 0
        records = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
        assert [record["update"] for record in records][-len(updates) :] == updates
        assert (records[-1]["epoch"], records[-1]["samples"]) == (epochs, 36 * epochs)
