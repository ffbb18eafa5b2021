"""Every error a user can cause: one clear line on stderr, the exit status, nothing saved damaged."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_config

from pixelbert_plugin.checkpoint.checkpoints import problem
from pixelbert_plugin.checkpoint.restore import read_model
from pixelbert_plugin.commands import run as cli


def fails(capsys, *arguments, status=2) -> str:
    """Run, expect the exit status and exactly one line of error; return it."""
    assert cli.main([str(argument) for argument in arguments]) == status
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "Traceback" not in lines[0]
    return lines[0]


@pytest.fixture
def config(tmp_path, own_vqa2_root) -> Path:
    return write_config(tmp_path / "tiny.yaml", own_vqa2_root, tmp_path / "run")


ONE_EPOCH = ["training.max_updates=5", "training.checkpoint_interval=5"]
QUESTIONS = "vqa2/v2_OpenEnded_mscoco_train2014_questions.json"


def test_no_config_and_missing_config(capsys):
    assert "config=PATH is given 0 times" in fails(capsys)
    assert "config='none.yaml': no such file" in fails(capsys, "config=none.yaml")
    assert "config=PATH is given 2 times" in fails(capsys, "config=a.yaml", "config=b.yaml")


def test_missing_file(capsys, config, own_vqa2_root):
    (own_vqa2_root / QUESTIONS).unlink()
    line = fails(capsys, f"config={config}")
    assert f"{own_vqa2_root / QUESTIONS}'" in line and "no such file" in line and "README" in line


def test_broken_json(capsys, config, own_vqa2_root):
    (own_vqa2_root / QUESTIONS).write_text('{"questions": [\n {"question_id": 1,\n')
    line = fails(capsys, f"config={config}")
    assert f"{own_vqa2_root / QUESTIONS}, line" in line and "broken JSON" in line


@pytest.mark.parametrize("kind", ["missing", "truncated", "text"])
@pytest.mark.parametrize("workers", [0, 1])
def test_bad_image_is_named_then_skipped_if_asked(capsys, caplog, config, own_vqa2_root, tmp_path, kind, workers):
    bad = own_vqa2_root / "coco/train2014/COCO_train2014_000000000105.jpg"
    content = bad.read_bytes()
    {"missing": bad.unlink, "truncated": lambda: bad.write_bytes(content[:400]), "text": lambda: bad.write_text("x")}[kind]()
    arguments = (f"config={config}", f"training.num_workers={workers}", "run_type=train", *ONE_EPOCH)
    line = fails(capsys, *arguments)
    assert str(bad) in line and "needed by sample 10500" in line and "dataset_config.vqa2.on_bad_image=skip" in line
    assert cli.main([*arguments, "env.overwrite=true", "dataset_config.vqa2.on_bad_image=skip"]) == 0
    listed = json.loads((tmp_path / "run/skipped_images_train.json").read_text())
    assert len(listed) == 1 and str(bad) in next(iter(listed))
    assert "1 unreadable images were skipped" in caplog.text


def test_skipped_images_are_left_out_of_the_figures_and_counted(config, own_vqa2_root, tmp_path):
    (own_vqa2_root / "coco/val2014/COCO_val2014_000000000901.jpg").write_bytes(b"")
    assert cli.main([f"config={config}", "dataset_config.vqa2.on_bad_image=skip"]) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["val/vqa2/num_skipped"] == 3
    assert len(json.loads((tmp_path / "run/predictions/val_vqa2.json").read_text())) == 15  # a submission is complete


def test_question_without_answers_and_annotation_without_question(capsys, config, own_vqa2_root):
    path = own_vqa2_root / "vqa2/v2_mscoco_train2014_annotations.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({"annotations": content["annotations"][1:]}))
    assert "question 100000 has no answers" in fails(capsys, f"config={config}")
    questions = json.loads((own_vqa2_root / QUESTIONS).read_text())
    path.write_text(json.dumps(content))
    (own_vqa2_root / QUESTIONS).write_text(json.dumps({"questions": questions["questions"][1:]}))
    assert "answers question 100000, which is not in" in fails(capsys, f"config={config}")


def test_empty_split(capsys, config, own_vqa2_root):
    (own_vqa2_root / QUESTIONS).write_text('{"questions": []}')
    (own_vqa2_root / "vqa2/v2_mscoco_train2014_annotations.json").write_text('{"annotations": []}')
    assert "the train split of vqa2 is empty" in fails(capsys, f"config={config}")


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("training.batchsize=3", "training.batchsize: unknown key; did you mean batch_size?"),
        ("training.batch_size=lots", "training.batch_size: 'lots' is invalid"),
        ("model_config.pixelbert.num_sampeld_pixels=3", "num_sampeld_pixels: unknown key; did you mean num_sampled_pixels?"),
        ("model_config.pixelbert.image_encoder.type=resnet5", "no encoder is registered as 'resnet5'"),
        ("training.max_updates=null", "training.max_updates: is not set, and neither is training.max_epochs"),
        ("optimizer.head={type: sgd}", "optimizer.head: pixelbert has no such parameter group"),
        ("training.early_stop.monitor=val/vqa2/acuracy", "training.early_stop.monitor"),
        ("env.user_dir=nowhere", "env.user_dir='nowhere': no such file or folder"),
        ("plugins=[no_such_module]", "plugins: 'no_such_module' cannot be imported"),
        ("checkpoint.resume_file=none", "checkpoint.resume_file"),
        ("checkpoint.pretrained=none", "checkpoint.pretrained='none': no such checkpoint folder"),
        ("processors.answers.params.min_occurrences=999", "min_occurrences=999: no answer occurs so often"),
        ("processors.text={type: image, params: {short_edge: 9}}", "processors.text.type: 'image' is no processor of text"),
        ("model_config.pixelbert.image_encoder={type: bert}", "the encoder 'bert' cannot be built (TypeError"),
        ("processors.answers.params.splits=[trian]", "dataset_config.vqa2.splits.trian: no such split"),
    ],
)
def test_wrong_options(capsys, config, tmp_path, option, part):
    assert part in fails(capsys, f"config={config}", option)
    assert not (tmp_path / "run/checkpoints").exists()


def test_unwritable_save_folder(capsys, config):
    line = fails(capsys, f"config={config}", "env.save_dir=/proc/run")  # refused even to root
    assert "/proc/run: cannot be written" in line and "env.save_dir=PATH" in line


def test_save_folder_below_a_file(capsys, config, tmp_path):
    (tmp_path / "file").write_text("")
    line = fails(capsys, f"config={config}", f"env.save_dir={tmp_path / 'file/run'}")
    assert "cannot be written (Not a directory)" in line and "env.save_dir" in line


def test_a_folder_that_holds_a_run_is_refused_then_overwritten_or_resumed(capsys, config_with_run, tmp_path):
    (tmp_path / "run/notes.txt").write_text("mine")
    log = (tmp_path / "run/log.jsonl").read_text()
    line = fails(capsys, f"config={config_with_run}")
    assert "holds a run already" in line and "checkpoint.resume=true" in line and "env.overwrite=true" in line
    assert (tmp_path / "run/log.jsonl").read_text() == log
    assert "contradicts" in fails(capsys, f"config={config_with_run}", "env.overwrite=true", "checkpoint.resume=true")
    assert cli.main([f"config={config_with_run}", "checkpoint.resume=true", "training.max_updates=6"]) == 0
    assert [json.loads(line)["update"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()] == [1, 2, 3, 4, 5, 6]
    assert cli.main([f"config={config_with_run}", "env.overwrite=true", "training.max_updates=1"]) == 0
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 1
    assert (tmp_path / "run/notes.txt").read_text() == "mine"


def test_resume_with_another_model_is_refused_and_nothing_changes(capsys, config_with_run, tmp_path):
    resume = (f"config={config_with_run}", "checkpoint.resume=true", "training.max_updates=9")
    line = fails(capsys, *resume, "model_config.pixelbert.text_encoder.params.num_hidden_layers=1")
    assert "its weights are of another model" in line
    assert problem(tmp_path / "run/checkpoints/best") is None
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 4


def test_components_in_the_wrong_place(capsys, own_vqa2_root, tmp_path):
    processors = {"text": {"type": "image"}}
    config = write_config(tmp_path / "a.yaml", own_vqa2_root, tmp_path / "run", processors=processors)
    assert "processors.text.type: 'image' is no processor of text" in fails(capsys, f"config={config}")
    model = {"pixelbert": {"image_encoder": {"type": "bert"}}}
    config = write_config(tmp_path / "b.yaml", own_vqa2_root, tmp_path / "run", model_config=model)
    assert "the encoder 'bert' cannot be built (TypeError" in fails(capsys, f"config={config}")


def test_resume_with_another_optimizer_or_norm_is_refused(capsys, config_with_run, tmp_path):
    resume = (f"config={config_with_run}", "checkpoint.resume=true", "training.max_updates=9")
    line = fails(capsys, *resume, "optimizer.cnn.type=adamw")
    assert "was saved with optimizers {'cnn': 'sgd'" in line
    line = fails(capsys, *resume, "model_config.pixelbert.image_encoder.params.norm=frozen")
    assert "was saved with parameters such as image_encoder.resnet.bn1.bias" in line
    assert len((tmp_path / "run/log.jsonl").read_text().splitlines()) == 4


def test_resume_drops_what_is_no_record_from_the_log(config_with_run, tmp_path):
    log = tmp_path / "run/log.jsonl"
    records = log.read_bytes()
    log.write_bytes(b"garbage\n\n" + records + b'{"loss": 1}\n\xff\xfe\n{"update": 5, "lo')
    assert cli.main([f"config={config_with_run}", "checkpoint.resume=true", "training.max_updates=5"]) == 0
    assert log.read_bytes().startswith(records)
    assert [json.loads(line)["update"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5]


def test_a_builder_that_returns_no_samples_is_named(capsys, config, tmp_path):
    plugin = tmp_path / "odd.py"
    plugin.write_text(
        "from pixelbert_plugin import registry\n"
        "from pixelbert_plugin.data.builders.base import Builder\n"
        "@registry.register_builder('odd')\nclass Odd(Builder):\n"
        "    def samples(self, split):\n        return None\n"
    )
    line = fails(capsys, f"config={config}", "datasets=[odd]", f"env.user_dir={plugin}")
    assert f"the train split of odd (builder {plugin}:3) is None; samples(split) must return a list of Sample" in line


def test_a_torn_checkpoint_is_named_and_the_one_before_it_resumed(caplog, config_with_run, tmp_path):
    torn = tmp_path / "run/checkpoints/update_000004/__0_0.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    assert cli.main([f"config={config_with_run}", "checkpoint.resume=true", "training.max_updates=6"]) == 0
    assert f"checkpoint {torn.parent} is invalid: __0_0.safetensors is not as it was written" in caplog.text
    records = (tmp_path / "run/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["update"] for line in records] == [1, 2, 3, 4, 5, 6]
    assert problem(torn.parent) is None  # written again on the way


def test_a_rewind_into_the_same_folder_is_refused(capsys, config_with_run, tmp_path):
    first = tmp_path / "run/checkpoints/update_000002"
    rewind = (f"config={config_with_run}", "checkpoint.resume=true", f"checkpoint.resume_file={first}")
    assert "holds update_000004, past its update 2; choose another env.save_dir" in fails(capsys, *rewind)
    assert cli.main([*rewind, f"env.save_dir={tmp_path / 'other'}"]) == 0
    records = (tmp_path / "other/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["update"] for line in records] == [3, 4]


def test_evaluation_checks_its_folder_before_the_work(capsys, config_with_run, tmp_path):
    best = f"checkpoint.resume_file={tmp_path / 'run/checkpoints/best'}"
    line = fails(capsys, f"config={config_with_run}", "run_type=val", best, "env.save_dir=/proc/run")
    assert "/proc/run: cannot be written" in line and "val/vqa2" not in capsys.readouterr().out


def test_diverged_weights_are_never_saved(capsys, config, tmp_path):
    options = (
        "optimizer.cnn.params.lr=1e6",
        "model_config.pixelbert.pixel_layer_norm=true",
        "training.max_updates=8",
        "training.checkpoint_interval=1",
    )
    fails(capsys, f"config={config}", *options, status=3)
    for path in (tmp_path / "run/checkpoints").glob("update_*"):
        tensors = read_model(path).values()
        assert all(tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point())


def test_a_builder_that_raises_is_named(capsys, config, tmp_path):
    plugin = tmp_path / "raising.py"
    plugin.write_text(
        "from pixelbert_plugin import registry\n"
        "from pixelbert_plugin.data.builders.base import Builder\n"
        "@registry.register_builder('raising')\nclass Raising(Builder):\n"
        "    def samples(self, split):\n        raise ValueError('boom')\n"
    )
    line = fails(capsys, f"config={config}", "datasets=[raising]", f"env.user_dir={plugin}")
    assert "the builder 'raising'" in line and "raising.py:3" in line and "ValueError: boom" in line


def test_evaluating_without_a_checkpoint(capsys, config):
    assert "holds no checkpoint to evaluate" in fails(capsys, f"config={config}", "run_type=val")


def test_nan_ends_with_status_3_and_names_the_samples(capsys, config, tmp_path):
    line = fails(capsys, f"config={config}", "processors.image.params.std=[1e-38,1e-38,1e-38]", status=3)
    assert "the loss or its gradient is not finite; samples of the batch: [" in line
    for path in (tmp_path / "run/checkpoints").glob("update_*"):
        assert problem(path) is None


def test_more_processes_than_pairs_are_refused(capsys, config, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "9")
    assert "training.batch_size: 8 pairs per update are fewer than the 9 processes" in fails(capsys, f"config={config}")


@pytest.mark.slow
def test_full_disk_keeps_what_was_saved(config_with_run, tmp_path):
    """A real failing write: the kernel refuses files above a limit (as a full disk would) from the second run on."""
    before = {path: path.read_bytes() for path in (tmp_path / "run/checkpoints").rglob("*") if path.is_file()}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    resume = [f"config={config_with_run}", "checkpoint.resume=true", "training.max_updates=6"]
    command = [sys.executable, "-m", "pixelbert_plugin", *resume]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert (
        len(errors) == 1
        and "cannot be written" in errors[0]
        and "File too large" in errors[0]
        and "Traceback" not in done.stderr
    )
    after = {path: path.read_bytes() for path in (tmp_path / "run/checkpoints").rglob("*") if path.is_file()}
    assert after == before
    assert cli.main(resume) == 0


@pytest.mark.slow
def test_debug_shows_the_traceback(config):
    command = [sys.executable, "-m", "pixelbert_plugin", f"config={config}", "training.seed=x", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" in done.stderr and "error: training.seed" in done.stderr
