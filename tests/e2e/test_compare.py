"""`--compare`: runs whose difference is known, folders and files that are none; and what trackers leave as it is."""

import json
import shutil

import catalogue
import pytest
import yaml
from conftest import write_config

from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.metrics.vqa import vqa_accuracy


def annotated(root) -> dict[int, tuple[str, ...]]:
    content = json.loads((root / "vqa2/v2_mscoco_val2014_annotations.json").read_text())
    return {item["question_id"]: tuple(answer["answer"] for answer in item["answers"]) for item in content["annotations"]}


@pytest.fixture
def runs(tmp_path, tiny_run, vqa2_root):
    """Two copies of a run. The first is right on all but the colour of each image; the second on all but 900000's colour."""
    truth, folders = annotated(vqa2_root), []
    for name, wrong in (("first", [question for question in truth if question % 1000 == 0]), ("second", [900000])):
        folder = tmp_path / name
        shutil.copytree(tiny_run, folder, symlinks=True)
        best = {question: max(answers, key=answers.count) for question, answers in truth.items()}
        rows = [{"question_id": key, "answer": "nonsense" if key in wrong else answer} for key, answer in best.items()]
        (folder / "predictions/val_vqa2.json").write_text(json.dumps(rows))
        scores = {row["question_id"]: vqa_accuracy(row["answer"], truth[row["question_id"]]) for row in rows}
        results = json.loads((folder / "results.json").read_text())
        results["val/vqa2/accuracy"] = sum(scores.values()) / len(scores)
        (folder / "results.json").write_text(json.dumps(results))
        folders.append((folder, scores))
    config = yaml.safe_load((tmp_path / "second/config.yaml").read_text())
    config["training"]["seed"] = 5
    (tmp_path / "second/config.yaml").write_text(yaml.safe_dump(config))
    return folders


def compare(*arguments) -> int:
    return cli.main(["--compare", *map(str, arguments)])


def test_a_known_difference_is_what_is_told(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (first, scores_a), (second, scores_b) = runs
    before = {path: path.read_bytes() for run in (first, second) for path in run.rglob("*") if path.is_file()}
    assert compare(first, second, "format=json", "resamples=400", "picture=curves.png") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["options"]["training.seed"] == ["1", "5"]
    assert set(told["options"]) == {"training.seed"}  # both have the config of one run
    (split,) = told["splits"]
    assert (split["name"], split["samples"], split["clusters"]) == ("val_vqa2", 15, 5)
    accuracy = split["metrics"]["accuracy"]
    means = [sum(scores.values()) / 15 for scores in (scores_a, scores_b)]
    assert [each["value"] for each in accuracy["values"]] == pytest.approx(means)
    (difference,) = accuracy["differences"]
    gains = {key: scores_b[key] - scores_a[key] for key in scores_a}
    assert difference["value"] == pytest.approx(sum(gains.values()) / 15)
    assert 0 < difference["low"] < difference["value"] < difference["high"] <= 1 / 3 + 1e-9  # where 900 is not drawn
    colour = "accuracy[question_type=what color is the]"
    assert split["metrics"][colour]["differences"][0]["value"] == pytest.approx(3 * difference["value"])
    assert "accuracy[answer_type=number]" in split["same"]
    (pair,) = split["pairs"]
    assert (pair["first_is_better"], pair["other_is_better"], pair["equal"]) == (0, 4, 11)
    assert {int(example["sample"]) for example in pair["examples"]} == {key for key, gain in gains.items() if gain > 0}
    assert all(example["predictions"][0] == "nonsense" for example in pair["examples"])
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert before == {path: path.read_bytes() for run in (first, second) for path in run.rglob("*") if path.is_file()}


def test_the_tables_say_so_in_words(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    (first, _), (second, _) = runs
    for _ in range(2):  # its own picture may be drawn again
        assert compare(first, second, "examples=1") == 0
    out = capsys.readouterr().out
    assert "training.seed" in out and "second is better on 90" in out and "first is better on 0 samples, second on 4" in out
    assert "accuracy[question_type=what color is the]" in out and "5 groups are few for a bootstrap" in " ".join(out.split())
    assert (tmp_path / "compare_first_second.png").exists()
    (tmp_path / "other.png").write_bytes(b"somebody's")
    assert compare(first, second, "picture=other.png") == 2
    assert "holds another file" in capsys.readouterr().err and (tmp_path / "other.png").read_bytes() == b"somebody's"


def test_a_run_compared_with_its_copy_has_no_difference(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs[0][0], tmp_path / "copy", symlinks=True)
    assert compare(runs[0][0], tmp_path / "copy", "format=json") == 0
    told = json.loads(capsys.readouterr().out)
    (split,) = told["splits"]
    assert told["options"] == {} and split["metrics"] == {} and "accuracy" in split["same"]
    assert split["pairs"][0]["equal"] == split["pairs"][0]["same_prediction"] == 15


def test_what_is_wrong_is_one_line(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (first, _), (second, _) = runs
    for arguments, message in (
        ([first], "takes the folders of two runs or more"),
        ([first, tmp_path / "nowhere"], "nowhere: no such folder; give a run's env.save_dir"),
        ([first, first], "is named twice"),
        ([first, second, "resamples=3"], "resamples: 3 is invalid: must be at least 10"),
        ([first, second, "config=x.yaml"], "reads the configurations of the runs' folders"),
        ([first, second, "picture=x.gif"], "must end in .png, .pdf or .svg"),
        ([first, second, "exampels=1"], "exampels: unknown option; did you mean examples?"),
    ):
        assert compare(*arguments) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1, err


def test_a_later_state_of_a_plugin_is_held_against_the_first_ones_truth(runs, tmp_path, capsys, monkeypatch):
    """Each run has a file that registers the same name, as two states of one plugin do."""
    monkeypatch.chdir(tmp_path)
    for folder, _ in runs:
        plugin = tmp_path / f"plugin_of_{folder.name}.py"
        plugin.write_text("from pixelbert_plugin import register_metric\n\nregister_metric('exact')(lambda a, b: 0.0)\n")
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["env"]["user_dir"] = str(plugin)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    before = dict(catalogue.REGISTRY)
    try:
        assert compare(*[folder for folder, _ in runs], "format=json") == 0
    finally:
        catalogue.REGISTRY.clear()
        catalogue.REGISTRY.update(before)
    told = json.loads(capsys.readouterr().out)
    assert [split["name"] for split in told["splits"]] == ["val_vqa2"] and told["remarks"] == []


def test_a_run_without_predictions_is_named(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (first, _), (second, _) = runs
    third = shutil.copytree(second, tmp_path / "third", symlinks=True)
    (third / "predictions/val_vqa2.json").unlink()
    assert compare(first, second, third, "format=json") == 0
    remarks = json.loads(capsys.readouterr().out)["remarks"]
    assert remarks[0] == (
        "first: val_vqa2: no such predictions in third; run_type=val or test writes them, and without that run the others are "
        "compared"
    )


def test_a_narrow_terminal_breaks_no_word(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    assert compare(*[folder for folder, _ in runs]) == 0
    lines = [line.split("│")[0].strip() for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert "[answer_type=other]" in lines, lines


def test_predictions_that_cannot_be_held_against_the_truth_leave_the_rest(runs, tmp_path, capsys, monkeypatch):
    """The data is elsewhere, or a file is another's: metrics of results.json are told, and why there is no interval."""
    monkeypatch.chdir(tmp_path)
    (first, _), (second, _) = runs
    assert compare(first, second, "format=json", f"env.data_dir={tmp_path / 'empty'}", "env.cache_dir=null") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["splits"] == [] and "no such file" in told["remarks"][0]
    assert told["results"]["val/vqa2/accuracy"][0] != told["results"]["val/vqa2/accuracy"][1]
    rows = [{"question_id": 1, "answer": "yes"}]
    (second / "predictions/val_vqa2.json").write_text(json.dumps(rows))
    assert compare(first, second, "format=json") == 0
    assert "'1' is no sample of the val split" in json.loads(capsys.readouterr().out)["remarks"][0]


TRACKER = """
from pixelbert_plugin import register_tracker


@register_tracker("failing")
class Failing:
    def begin(self, run):
        self.run = run

    def scalars(self, values, update):
        raise RuntimeError(f"nobody answers at {update}")


@register_tracker("noting")
class Noting:
    def begin(self, run):
        self.file = run.folder / "noted.txt"
        self.file.write_text(f"{run.name} {run.changed[0]} {run.metrics[0]}\\n")

    def scalars(self, values, update):
        with self.file.open("a") as file:
            file.write(f"{update} {values.get('train/loss')}\\n")

    def final(self, metrics):
        with self.file.open("a") as file:
            file.write(f"final {metrics['val/vqa2/accuracy']}\\n")
"""


def test_trackers_change_no_number_and_one_that_fails_is_told_once(tiny_run, tmp_path, vqa2_root, caplog):
    """All of them, with pictures, against a run without pictures: losses, norms and weights' metrics bit for bit."""
    (tmp_path / "mine.py").write_text(TRACKER)
    config = write_config(tmp_path / "tiny.yaml", vqa2_root, tmp_path / "tracked", evaluation={"num_pictures": 8})
    options = [f"env.user_dir={tmp_path / 'mine.py'}", "trackers=tensorboard,failing,noting", "training.seed=1"]
    assert cli.main([f"config={config}", *options]) == 0
    logs = []
    for folder in (tiny_run, tmp_path / "tracked"):
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        logs.append([(line["loss"], line["grad_norm"], line["grad_norms"]) for line in lines])
    assert logs[0] == logs[1]
    evaluations = [(folder / "evaluations.jsonl").read_text() for folder in (tiny_run, tmp_path / "tracked")]
    assert evaluations[0] == evaluations[1]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["tracker 'failing': left out from here on (RuntimeError: nobody answers at 1); the run goes on"]
    noted = (tmp_path / "tracked/noted.txt").read_text().splitlines()
    losses = [f"{number} {loss[0]}" for number, loss in enumerate(logs[0], 1)]
    assert noted[0] == "tracked trackers final/val/vqa2/accuracy"
    assert [line for line in noted if line in losses] == losses and noted[-1].startswith("final ")


def test_an_unknown_tracker_is_one_line_before_any_work(tiny_config, tmp_path, capsys):
    assert cli.main([f"config={tiny_config}", "trackers=tensorbord"]) == 2
    assert "trackers: no tracker is registered as 'tensorbord'; did you mean tensorboard?" in capsys.readouterr().err
    assert cli.main([f"config={tiny_config}", "tracker_config.wandb.projct=x", "trackers=wandb"]) == 2
    assert "did you mean project?" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_dry_run_tells_all_and_leaves_nothing(tiny_run, tiny_config, tmp_path, capsys):
    """Its first two updates are the run's own: the second one's loss is that of the log."""
    assert cli.main([f"config={tiny_config}", "--dry-run"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "run").exists()
    second = json.loads((tiny_run / "log.jsonl").read_text().splitlines()[1])
    assert f"{second['loss']:.4f}, {second['grad_norm']:.4f}" in out
    for told in (
        "train: vqa2 │ 36 samples of 12 images",
        "val: vqa2 │ 15 samples of 5 images",
        "parameters: image_encoder │ 11,176,512",
        "8 pairs an update: 1 × 8 pairs",
        "4 updates; an epoch is 36 samples, 4.5 updates",
        "fp32 native",
        "texts, tokens │ 8 × ",
        "memory of a training, estimated │ 0.",
        "waiting for data",
    ):
        assert told in out, told


@pytest.mark.slow
def test_a_dry_run_where_a_run_lies_says_what_the_run_will_ask(config_with_run, tmp_path, caplog):
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert cli.main([f"config={config_with_run}", "--dry-run", "training.sanity_check=false"]) == 0
    assert any("holds a run already" in record.getMessage() for record in caplog.records)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
