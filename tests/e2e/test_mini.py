"""The paper's whole chain on a tiny world in the official formats: pre-train, fine-tune, evaluate, submit."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from pixelbert_plugin.checkpoint.restore import read_model
from pixelbert_plugin.commands import data as data_cli
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.world import write_world

CONFIGS = "projects/pixelbert/configs/mini"
SIZES = {
    "coco_train_images": 24,
    "coco_restval_images": 6,
    "coco_val_images": 8,
    "coco_test_images": 8,
    "coco_test2015_images": 6,
    "vg_images": 20,
    "vg_coco_images": 8,
    "vg_flickr_images": 2,
    "flickr_train_images": 24,
    "flickr_val_images": 6,
    "flickr_test_images": 6,
    "nlvr2_train_sets": 10,
    "nlvr2_dev_sets": 3,
    "nlvr2_test1_sets": 3,
    "nlvr2_test2_sets": 2,
    "backbone_updates": 1,
}
SHORT = [
    "training.max_updates=2",
    "training.max_epochs=null",
    "training.evaluation_interval=2",
    "training.num_workers=0",
    "training.log_interval=1",
    "model_config.pixelbert.text_encoder.params.num_hidden_layers=1",
    "env.cache_dir=null",
    "evaluation.num_pictures=0",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("world") / "mini"
    write_world(WorldConfig(out=str(out), processes=1, **SIZES))
    return out


@pytest.fixture(scope="module")
def pretrained(world, tmp_path_factory):
    """A save folder of a short pre-training."""
    folder = tmp_path_factory.mktemp("pretrain")
    options = ["training.batch_size=32", "training.micro_batch_size=16", f"env.data_dir={world}", f"env.save_dir={folder}"]
    options.append("training.evaluation_interval=1")
    assert cli.main([f"config={CONFIGS}/pretrain.yaml", *SHORT, *options]) == 0
    return folder


def run(world, pretrained, folder, name, *options):
    start = [f"checkpoint.pretrained={pretrained}/checkpoints/best"]
    paths = [f"env.data_dir={world}", f"env.save_dir={folder}"]
    sizes = ["training.batch_size=8", "training.micro_batch_size=4"]
    return cli.main([f"config={CONFIGS}/{name}.yaml", *SHORT, *sizes, *paths, *start, *options])


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_pretraining_reports_both_accuracies_and_logs_both_losses(pretrained):
    found = results(pretrained)
    assert 0 <= found["val/coco/mlm_accuracy"] <= 1 and 0 <= found["val/coco/itm_accuracy"] <= 1
    first = json.loads((pretrained / "log.jsonl").read_text().splitlines()[0])
    assert {"mlm", "itm"} <= set(first["losses"]) and first["samples"] == 16  # of 32 pairs, half are true
    evaluations = [json.loads(line) for line in (pretrained / "evaluations.jsonl").read_text().splitlines()]
    assert [row["update"] for row in evaluations if "val/coco/mlm_accuracy" in row] == [1, 2]
    lines = (pretrained / "predictions/val_coco.tsv").read_text().splitlines()
    assert len(lines) == 1 + 8 * 5 and lines[0] == "sample_id\ttruth\tprediction\tmlm_right\tmlm_words\titm_right"
    right, words, _ = (sum(int(line.split("\t")[place]) for line in lines[1:]) for place in (-3, -2, -1))
    assert right / words == pytest.approx(found["val/coco/mlm_accuracy"])


def test_vqa_names_the_heads_that_differ_and_writes_complete_submissions(world, pretrained, tmp_path, caplog):
    caplog.set_level("INFO")
    assert run(world, pretrained, tmp_path / "vqa", "vqa2", "processors.answers.params.min_occurrences=1") == 0
    assert "left as initialised, as expected: heads.answers.layers.0.weight" in caplog.text
    assert "in the file but not in the model, as expected: heads.i" in caplog.text.replace("heads.mlm", "heads.i")
    found = results(tmp_path / "vqa")
    assert {"accuracy", "question_prior", "accuracy[answer_type=number]"} <= {
        key.split("/", 2)[2] for key in found if "minitest/vqa2" in key
    }
    for own in ("test-dev", "test"):
        options = ["run_type=test", f"dataset_config.vqa2.use.test={own}", "evaluation.predict=true"]
        paths = [f"env.data_dir={world}", f"env.save_dir={tmp_path / 'vqa'}"]
        assert cli.main([f"config={CONFIGS}/vqa2.yaml", *SHORT, *paths, *options]) == 0
        rows = json.loads((tmp_path / f"vqa/predictions/{own}_vqa2.json").read_text())
        name = {"test-dev": "test-dev2015", "test": "test2015"}[own]
        questions = json.loads((world / f"vqa2/v2_OpenEnded_mscoco_{name}_questions.json").read_text())["questions"]
        assert sorted(row["question_id"] for row in rows) == sorted(q["question_id"] for q in questions)
        assert all(set(row) == {"question_id", "answer"} and isinstance(row["answer"], str) for row in rows)
    names = {path.name for path in (tmp_path / "vqa/predictions").iterdir()}
    assert names == {f"{own}_vqa2.json" for own in ("minival", "minitest", "test-dev", "test")}  # none wrote over another


@pytest.mark.slow
def test_an_unreadable_test_image_still_gets_an_answer(world, pretrained, tmp_path):
    """A submission must be complete: a skipped image's questions are answered from a grey image, and left out of figures."""
    assert run(world, pretrained, tmp_path / "vqa", "vqa2", "processors.answers.params.min_occurrences=1") == 0
    path = sorted((world / "coco/test2015").iterdir())[0]
    whole = path.read_bytes()
    path.write_bytes(b"torn")
    try:
        skip = ["dataset_config.vqa2.use.test=test", "dataset_config.vqa2.on_bad_image=skip", "run_type=test"]
        paths = [f"env.data_dir={world}", f"env.save_dir={tmp_path / 'vqa'}"]
        assert cli.main([f"config={CONFIGS}/vqa2.yaml", *SHORT, *paths, *skip]) == 0
    finally:
        path.write_bytes(whole)
    rows = json.loads((tmp_path / "vqa/predictions/test_vqa2.json").read_text())
    questions = json.loads((world / "vqa2/v2_OpenEnded_mscoco_test2015_questions.json").read_text())["questions"]
    assert len(rows) == len(questions)


def test_nlvr2_writes_the_csv_of_the_official_evaluation(world, pretrained, tmp_path):
    assert run(world, pretrained, tmp_path / "nlvr2", "nlvr2") == 0
    found = results(tmp_path / "nlvr2")
    rows = [line.split(",") for line in (tmp_path / "nlvr2/predictions/test1_nlvr2.csv").read_text().splitlines()]
    predicted = dict(rows)
    examples = [json.loads(line) for line in (world / "nlvr2/data/test1.json").read_text().splitlines()]
    assert set(predicted) == {example["identifier"] for example in examples} and len(rows) == len(examples)
    right = sum(predicted[example["identifier"]] == example["label"] for example in examples)
    assert found["test1/nlvr2/accuracy"] == pytest.approx(right / len(examples))


@pytest.mark.parametrize("name", ["flickr30k", "coco"])
def test_retrieval_scores_every_pair_and_leaves_the_cnn_as_it_was(world, pretrained, tmp_path, name, capsys, caplog):
    folder = tmp_path / name
    assert run(world, pretrained, folder, f"{name}_retrieval", "task_config.retrieval.fold_images=2") == 0
    found = results(folder)
    with safe_open(folder / f"predictions/test_{name}.safetensors", "np") as file:
        scores = file.get_tensor("scores")
        image_ids, text_ids = (json.loads(file.metadata()[key]) for key in ("image_ids", "text_ids"))
    images = {"flickr30k": 6, "coco": 8}[name]
    assert scores.shape == (images, 5 * images) == (len(image_ids), len(text_ids)) and np.isfinite(scores).all()
    assert f"test/{name}: scoring {images} images × {5 * images} texts = {5 * images**2} pairs" in capsys.readouterr().out
    assert found[f"test/{name}/num_images"] == images and f"test/{name}/num_images_in_split" not in found
    assert found[f"test/{name}/text_to_image_r@10"] == 1.0  # of fewer images than ten
    assert f"test/{name}/2_images_image_to_text_r@1" in found
    before, after = (read_model(run / "checkpoints/best") for run in (pretrained, folder))
    assert all(before[name].equal(value) for name, value in after.items() if name.startswith("image_encoder."))
    assert not before["projection.weight"].equal(after["projection.weight"])
    if name == "flickr30k":
        two = ["run_type=test", "task_config.retrieval.max_test_images=2"]
        command = [f"config={CONFIGS}/flickr30k_retrieval.yaml", *SHORT, *two]
        assert cli.main([*command, f"env.data_dir={world}", f"env.save_dir={folder}"]) == 0
        assert results(folder)["test/flickr30k/num_images"] == 2 and results(folder)["test/flickr30k/num_images_in_split"] == 6
        with safe_open(folder / "predictions/test_flickr30k.safetensors", "np") as file:
            assert np.allclose(file.get_tensor("scores"), scores[:2, :10], atol=1e-5)
            assert json.loads(file.metadata()["text_ids"]) == text_ids[:10]
        assert "only the first 2 of 6 images are scored (task_config.retrieval.max_test_images)" in caplog.text


def test_check_asks_for_the_splits_that_answers_are_counted_in(world, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    command = ["check", f"config={CONFIGS}/vqa2.yaml", f"env.data_dir={world}", "env.cache_dir=null", "run_type=train"]
    assert data_cli.main([*command, "processors.answers.params.splits=[train,test-dev]"]) == 0
    assert "test-dev2015_questions.json" in capsys.readouterr().out
    assert data_cli.main([*command, "processors.answers.params.splits=[train]"]) == 0
    assert "test-dev2015_questions.json" not in capsys.readouterr().out


def test_check_shows_brackets_as_they_are(world, capsys, monkeypatch):
    """They are markup to rich."""
    monkeypatch.setenv("COLUMNS", "500")
    splits = "[{captions: coco/annotations/captions_val2014.json, images: 'im[/old]'}]"
    command = ["check", f"config={CONFIGS}/coco_retrieval.yaml", f"env.data_dir={world}", "env.cache_dir=null", "run_type=val"]
    assert data_cli.main([*command, f"dataset_config.coco.splits.val={splits}"]) == 2
    assert "im[/old]/COCO_val2014" in capsys.readouterr().out


def test_check_finds_a_whole_world_whole_and_names_what_is_gone(world, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")  # no line of the table is folded
    for name in ("pretrain", "vqa2", "nlvr2", "flickr30k_retrieval", "coco_retrieval"):
        command = ["check", f"config={CONFIGS}/{name}.yaml", f"env.data_dir={world}", "env.cache_dir=null"]
        assert data_cli.main(command) == 0, capsys.readouterr().out
        assert "checks passed" in capsys.readouterr().out
    gone = sorted((world / "flickr30k/flickr30k-images").iterdir())[0]
    content = gone.read_bytes()
    gone.unlink()
    try:
        command = ["check", f"config={CONFIGS}/flickr30k_retrieval.yaml", f"env.data_dir={world}", "env.cache_dir=null"]
        assert data_cli.main([*command, "run_type=train_val_test"]) == 2
        output = capsys.readouterr().out
        assert "missing" in output and gone.name in output
    finally:
        gone.write_bytes(content)
    assert data_cli.main([*command, f"env.data_dir={world}/elsewhere"]) == 2
    output = capsys.readouterr().out
    assert "no such file" in output and "datasets/flickr30k/README.md" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make"], "out: '' is invalid: names no folder; give out=PATH"),
        (["make", "out"], "'out': not understood; options are given as key=value"),
        (["make", "out=x", "coco_trian_images=3"], "coco_trian_images: unknown key; did you mean coco_train_images?"),
        (["check"], "config=PATH is given 0 times"),
        (["check", "config=none.yaml"], "config='none.yaml': no such file"),
    ],
)
def test_wrong_input_of_the_data_command_is_one_line(capsys, arguments, message):
    assert data_cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
