"""MMF's own trainer on our model and data sets, against our runner: the same losses, and checkpoints carried both ways."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fault_tools import make_world
from mmf_checkout import CHECKOUT, needs_mmf

pytestmark = needs_mmf
ROOT = Path(__file__).parents[2]
CONFIGS = "projects/pixelbert/configs/mini"
UPDATES = 14
SMALL = [
    "run_type=train_val",
    "training.max_epochs=null",
    f"training.max_updates={UPDATES}",
    "training.batch_size=16",
    "training.micro_batch_size=8",
    "training.evaluation_interval=7",
    "training.checkpoint_interval=7",
    "training.log_interval=1",
    "training.num_workers=1",
    "training.num_threads=1",
    "training.dataset_weights={}",
    "processors.image.params.horizontal_flip=0.5",
    "model_config.pixelbert.text_encoder.params.num_hidden_layers=1",
    "model_config.pixelbert.text_encoder.params.dropout=0.1",
    "env.cache_dir=null",
]
TASKS = {  # config, options, the split's predictions and what they are keyed by
    "vqa2": ([f"config={CONFIGS}/vqa2.yaml"], "minival_vqa2.json"),
    "nlvr2": ([f"config={CONFIGS}/nlvr2.yaml"], "dev_nlvr2.csv"),
    "coco": ([f"config={CONFIGS}/pretrain.yaml", "datasets=[coco]"], "val_coco.tsv"),
}


def run(module: str, *arguments: str, status: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{CHECKOUT}:{Path(__file__).parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert done.returncode == status, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory, monkeypatch_module) -> Path:
    folder = tmp_path_factory.mktemp("world")
    monkeypatch_module.setenv("MMF_CACHE_DIR", str(folder / "mmf_cache"))
    return make_world(folder / "mini")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def mmf(*arguments: str, record: Path | None = None, status: int = 0) -> str:
    extra = [f"training.callbacks=[{{type: recorder, params: {{path: {record}}}}}]", "plugins=[mmf_recorder]"] if record else []
    return run("pixelbert_plugin.mmf", *arguments, *extra, status=status)


def losses(path: Path) -> list[tuple[int, float]]:
    return [(row["update"], row["loss"]) for row in map(json.loads, path.read_text().splitlines())]


def metrics(folder: Path) -> dict[str, float]:
    found = json.loads((folder / "results.json").read_text())
    return {key: value for key, value in found.items() if key != "training_seconds"}


@pytest.mark.parametrize("name", TASKS)
def test_mmfs_trainer_gives_our_losses_and_checkpoints_go_both_ways(name, world, tmp_path):
    arguments, predictions = TASKS[name]
    common = [*arguments, *SMALL, f"env.data_dir={world}"]
    log = mmf(*common, f"dataset={name}", "model=pixelbert", f"env.save_dir={tmp_path}/mmf", record=tmp_path / "mmf.jsonl")
    run("pixelbert_plugin", *common, f"env.save_dir={tmp_path}/own")
    found, expected = losses(tmp_path / "mmf.jsonl"), losses(tmp_path / "own/log.jsonl")
    assert [update for update, _ in found] == list(range(1, UPDATES + 1))
    for (_, loss), (_, own) in zip(found, expected, strict=True):
        assert loss == pytest.approx(own, rel=1e-6)
    assert f"val/pixelbert_{name}/pixelbert/" in log and "mmf.trainers.mmf_trainer" in log

    evaluate = [*common, "run_type=val"]
    own = ["pixelbert_plugin", *evaluate]  # MMF's checkpoint in our runner
    run(*own, f"checkpoint.pretrained={tmp_path}/mmf/current.ckpt", f"env.save_dir={tmp_path}/carried")
    last = f"{tmp_path}/own/checkpoints/update_{UPDATES:06d}"
    run(*own, f"checkpoint.pretrained={last}", f"env.save_dir={tmp_path}/last")
    assert metrics(tmp_path / "carried") == pytest.approx(metrics(tmp_path / "last"))
    assert (tmp_path / "carried/predictions" / predictions).read_text() == (
        tmp_path / "last/predictions" / predictions
    ).read_text()

    run(*own, f"checkpoint.resume_file={last}", "--export", f"{tmp_path}/x.safetensors")
    for number, start in enumerate((last, f"{tmp_path}/x.safetensors")):  # ours in MMF: a folder, and an exported file
        folder = tmp_path / f"back{number}"
        mmf(*evaluate, "evaluation.predict=true", f"checkpoint.pretrained={start}", f"env.save_dir={folder}")
        rows = json.loads(next(folder.rglob("reports/*.json")).read_text())
        if predictions.endswith(".json"):
            assert rows == json.loads((tmp_path / "last/predictions" / predictions).read_text())
        else:
            lines = (tmp_path / "last/predictions" / predictions).read_text().splitlines()
            own = [line.replace("\t", ",").split(",") for line in lines if not line.startswith("sample_id")]
            assert [[str(row["sample_id"]), row["prediction"]] for row in rows] == [[line[0], line[-1]] for line in own]


def test_mmf_resumes_where_it_was(world, tmp_path):
    common = [*TASKS["vqa2"][0], *SMALL, f"env.data_dir={world}", "training.evaluation_interval=null"]
    mmf(*common, f"env.save_dir={tmp_path}/whole", record=tmp_path / "whole.jsonl")
    for updates in (7, UPDATES):
        options = [f"training.max_updates={updates}", "checkpoint.resume=true", f"env.save_dir={tmp_path}/parts"]
        mmf(*common, *options, record=tmp_path / "parts.jsonl")
    assert losses(tmp_path / "parts.jsonl") == losses(tmp_path / "whole.jsonl")


def test_two_data_sets_are_mixed_by_mmf_and_one_without_a_split_is_passed_over(world, tmp_path):
    common = [f"config={CONFIGS}/pretrain.yaml", *SMALL, f"env.data_dir={world}", f"env.save_dir={tmp_path}/run"]
    log = mmf(*common, "dataset=coco,visual_genome")
    assert "train/pixelbert_coco/mlm" in log and "train/pixelbert_visual_genome/mlm" in log
    assert "val/pixelbert_coco/pixelbert/itm_accuracy" in log and "val/pixelbert_visual_genome" not in log


def test_retrieval_trains(world, tmp_path):
    options = ["task_config.retrieval.num_negatives=3", "task_config.retrieval.num_hardest=2", f"env.save_dir={tmp_path}/run"]
    log = mmf(f"config={CONFIGS}/flickr30k_retrieval.yaml", *SMALL, f"env.data_dir={world}", *options)
    assert "val/flickr30k/retrieval" in log


NATIVE = """
task: vqa
processors:
  text: {{type: bert_tokenizer, params: {{vocabulary: {world}/vocabulary, max_length: 32}}}}
  image: {{type: image, params: {{short_edge: 64, long_edge: 96}}}}
  answers: {{type: answers, params: {{min_occurrences: 3, splits: [train]}}}}
model_config:
  pixelbert:
    image_encoder: {{type: resnet18, params: {{max_pool: false}}}}
    text_encoder:
      type: bert
      params: {{hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64}}
dataset_config:
  pixelbert_vqa2:
    use: {{val: minival, test: minitest}}
optimizer: {{type: AdamW, params: {{lr: 1.0e-3}}}}
evaluation: {{metrics: [pixelbert, vqa_accuracy]}}
training: {{batch_size: 16, max_updates: 3, evaluation_interval: 3, seed: 3, num_workers: 0, log_interval: 1}}
env: {{data_dir: {world}, save_dir: {folder}}}
"""


@pytest.mark.parametrize("is_user_dir", [False, True])
def test_a_yaml_of_mmfs_own_kind_and_env_user_dir(is_user_dir, world, tmp_path):
    """MMF's optimizer and metric; `mmf_run env.user_dir=pixelbert_plugin.mmf` as where MMF imports by itself."""
    config = tmp_path / "native.yaml"
    config.write_text(NATIVE.format(world=world, folder=tmp_path / "run"))
    arguments = [f"config={config}", "model=pixelbert", "run_type=train_val", "dataset=pixelbert_vqa2"]
    log = run("mmf_run_here", *arguments, "env.user_dir=pixelbert_plugin.mmf") if is_user_dir else mmf(*arguments)
    assert "val/pixelbert_vqa2/pixelbert/accuracy" in log and "val/pixelbert_vqa2/vqa_accuracy" in log


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("training.precision=bf16", "training.precision: 'bf16' is not supported in MMF"),
        ("training.parallel=fsdp", "training.parallel: is not supported in MMF: MMF has no FSDP"),
        ("training.compile=blocks", "training.compile: is not supported in MMF: MMF's trainer compiles no blocks"),
        ("training.gradient_checkpointing=true", "training.gradient_checkpointing: is not supported in MMF: MMF has no such"),
        ("training.micro_batch_size=6", "training.micro_batch_size: 6: MMF needs a divisor of training.batch_size=16"),
        ("training.eraly_stop.enabled=true", "training.eraly_stop: unknown key; did you mean early_stop?"),
        ("dataset=vqa22", "datasets: no builder is registered as 'vqa22'; did you mean vqa2?"),
        ("training.early_stop.monitor=val/accuracy", "must be val/<data set>/<metric>"),
    ],
)
def test_what_mmf_cannot_do_is_refused_in_one_line(option, message, world, tmp_path):
    arguments = [*TASKS["vqa2"][0], *SMALL, f"env.data_dir={world}", f"env.save_dir={tmp_path}/run", option]
    output = mmf(*arguments, status=2)
    assert message in output and "Traceback" not in output and not (tmp_path / "run").exists()


def test_a_folder_of_our_runner_is_not_written_over(world, tmp_path):
    (tmp_path / "log.jsonl").write_text("{}\n")
    output = mmf(*TASKS["vqa2"][0], *SMALL, f"env.data_dir={world}", f"env.save_dir={tmp_path}", status=2)
    assert "holds a run of pixelbert-run" in output and [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
