"""1, 2 and 3 processes compute the same: losses, gradients, metrics, predictions; and go on from each other's checkpoints.

With the same global batch, batch statistics frozen and dropout off, as only then is there one right answer. The runs: the
paper's pre-training on a mixture of two data sets (each image's captions together, MLM and ITM, pixels sampled, gradients
accumulated, an uneven last batch each epoch), VQA, and retrieval's scores.

Training runs in float64 (see several_runs.py). Sums formed in another order differ in the last bit, and training carries
that on: over twenty updates in float32, whose last bit is 6e-8, it grew to 1.5e-3 on one kind of CPU and 2e-4 on another,
by a factor of up to 25,000. The same growth from float64's 1e-16 stays below 3e-12; a wrong sample, scale or mean does not.
"""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from distributed_runs import losses, records, results, run_all
from safetensors.numpy import load_file
from test_mini import SIZES

from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.world import write_world

CONFIGS = "projects/pixelbert/configs/mini"
UPDATES, MIDDLE = 8, 4  # the first epoch ends unevenly at update 6
ROUNDING = 1e-10  # relative, in float64
# 41 images of test; 35 questions of minival
UNEVEN = {
    "coco_train_images": 10,
    "coco_restval_images": 5,
    "flickr_test_images": 41,
    "coco_val_images": 7,
    "questions_per_image": 5,
}
EXACT = [
    "training.num_workers=0",
    "training.num_threads=1",
    "training.log_interval=1",
    "training.max_epochs=null",
    f"training.max_updates={UPDATES}",
    f"training.evaluation_interval={UPDATES}",
    f"training.checkpoint_interval={MIDDLE}",
    "checkpoint.max_to_keep=9",
    "scheduler.params.warmup_updates=2",
    "model_config.pixelbert.image_encoder.params.norm=frozen",
    "model_config.pixelbert.text_encoder.params.num_hidden_layers=1",
    "model_config.pixelbert.text_encoder.params.dropout=0",
    "model_config.pixelbert.text_encoder.params.attention_dropout=0",
    "model_config.pixelbert.pixel_dropout=0",
    "training.max_grad_norm=1",
    "env.cache_dir=null",
    "evaluation.num_pictures=0",
]
# Adam divides a gradient by its own size: with the usual 1e-8, what is nothing but rounding moves weights too
STEADY = [
    *(f"optimizer.{group}.params.eps=1e-3" for group in ("cnn", "transformer")),
    "optimizer.cnn.params.lr=2e-5",
    "optimizer.transformer.params.lr=2e-4",
]
PRETRAIN = [
    f"config={CONFIGS}/pretrain.yaml",
    "training.batch_size=30",  # 15 true pairs an update, and 3 in the last one of an epoch
    "training.micro_batch_size=10",
    "training.dataset_weights={visual_genome: 0.2}",
    "run_type=train",
    *STEADY,
]
VQA = [
    f"config={CONFIGS}/vqa2.yaml",
    "training.batch_size=10",
    "training.micro_batch_size=4",
    "evaluation.batch_size=4",
    "training.max_updates=5",
    "training.evaluation_interval=5",
    *STEADY,
]
RETRIEVAL = [f"config={CONFIGS}/flickr30k_retrieval.yaml", "run_type=test", "evaluation.batch_size=64"]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("world") / "mini"
    write_world(WorldConfig(out=str(out), processes=1, **{**SIZES, **UNEVEN}))
    return out


@pytest.fixture(scope="module")
def command(world, tmp_path_factory):
    """Arguments of the run <name>_<processes>, saved in a folder of this name below `command.root`."""
    root = tmp_path_factory.mktemp("runs")

    def command(name: str, processes: int, *options: str) -> list[str]:
        return [*EXACT, *options, f"env.data_dir={world}", f"env.save_dir={root}/{name}_{processes}"]

    command.root = root
    return command


def middle_of(folder: Path) -> list[str]:
    return ["checkpoint.resume=true", f"checkpoint.resume_file={folder}/checkpoints/update_{MIDDLE:06}"]


@pytest.fixture(scope="module")
def runs(command) -> Path:
    """Pre-training with DDP on 2 processes, and on one."""
    for processes in (2, 1):
        run_all(processes, [command("ddp", processes, *PRETRAIN)], [], command.root)
    return command.root


@pytest.fixture(scope="module")
def further_runs(command, runs) -> Path:
    """VQA and retrieval on 2 processes and on one, which also goes on from the 2 processes' checkpoint."""
    for processes in (2, 1):
        go_further(processes, command)
    return runs


@pytest.fixture(scope="module")
def runs_on_3(command, further_runs) -> Path:
    run_all(3, [command("ddp", 3, *PRETRAIN)], [], further_runs)
    go_further(3, command)
    return further_runs


def go_further(processes: int, command) -> None:
    root = command.root
    start = f"checkpoint.pretrained={root}/ddp_2/checkpoints/update_{UPDATES:06}"
    commands = [command("vqa", processes, *VQA)]
    if processes != 2:
        commands.append(command("from_ddp", processes, *PRETRAIN, *middle_of(root / "ddp_2")))
    run_all(processes, commands, [command("retrieval", processes, *RETRIEVAL, start)], root)


@pytest.fixture(scope="module")
def more_runs(command, runs) -> Path:
    """float32 and bfloat16, FSDP2 on 2 and 3 processes, and from its checkpoint."""
    for processes in (2, 1, 3):
        rounded = [command("fp32", processes, *PRETRAIN, "training.max_updates=1")]
        rounded.append(command("bf16", processes, *PRETRAIN, "training.max_updates=4", "training.precision=bf16"))
        commands = []
        if processes != 1:
            commands.append(command("fsdp", processes, *PRETRAIN, "training.parallel=fsdp"))
        if processes == 2:
            again = ["training.parallel=fsdp", "training.gradient_checkpointing=true"]
            commands.append(command("fsdp_again", 2, *PRETRAIN, *again))
            commands.append(command("fsdp_compiled", 2, *PRETRAIN, *again, "training.compile=blocks"))
            commands.append(command("compiled", 2, *PRETRAIN, "training.compile=blocks"))
        if processes != 2:
            commands.append(command("from_fsdp", processes, *PRETRAIN, *middle_of(runs / "fsdp_2")))
        if processes == 3:
            commands.append(command("fsdp_from_ddp", 3, *PRETRAIN, *middle_of(runs / "ddp_2"), "training.parallel=fsdp"))
        run_all(processes, commands, rounded, runs)
    return runs


def test_any_number_of_processes_gives_the_same_losses(runs):
    agrees(runs, "ddp_2")


@pytest.mark.slow
def test_three_processes_too(runs_on_3):
    agrees(runs_on_3, "ddp_3")
    assert losses(runs_on_3 / "vqa_3") == pytest.approx(losses(runs_on_3 / "vqa_1"), rel=ROUNDING)
    goes_on(runs_on_3, "from_ddp_3")
    evaluates_alike(runs_on_3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp_2", "fsdp_3"])
def test_fsdp_too(more_runs, name):
    """And the same norms as DDP's: what they differ by in float32 is the order of sums, not another norm."""
    agrees(more_runs, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compiled_2", "fsdp_compiled_2"])
def test_compiled_blocks_too(more_runs, name):
    """Traced, with DDP, and with FSDP and gradient checkpointing."""
    agrees(more_runs, name)
    counts = [record["compilations"] for record in records(more_runs / name)]
    assert 0 < counts[0] <= counts[-1] < 60


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_bit(more_runs):
    kept, again = records(more_runs / "fsdp_2"), records(more_runs / "fsdp_again_2")
    for name in ("losses", "grad_norm"):
        assert [record[name] for record in again] == [record[name] for record in kept] and len(kept) == UPDATES


def agrees(runs, name, rounding=ROUNDING):
    one, several = records(runs / "ddp_1"), records(runs / name)
    assert [r["samples"] for r in several] == [r["samples"] for r in one] and len(several) == UPDATES
    assert any(b["samples"] - a["samples"] < 15 for a, b in pairwise(one))  # an epoch ended unevenly
    for a, b in zip(one, several, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=rounding)
        assert b["losses"] == pytest.approx(a["losses"], rel=rounding)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=rounding)
    assert one[-1]["loss"] < 0.95 * one[0]["loss"]  # the weights did move


@pytest.mark.slow
def test_binary_losses_of_vqa_too(further_runs):
    assert losses(further_runs / "vqa_2") == pytest.approx(losses(further_runs / "vqa_1"), rel=ROUNDING)


@pytest.mark.slow
def test_a_run_saved_on_two_processes_goes_on_on_one(further_runs):
    goes_on(further_runs, "from_ddp_1")


def goes_on(runs, name):
    unbroken, resumed = records(runs / "ddp_2")[MIDDLE:], records(runs / name)
    assert [r["update"] for r in resumed] == list(range(MIDDLE + 1, UPDATES + 1))
    assert [r["samples"] for r in resumed] == [r["samples"] for r in unbroken]
    for a, b in zip(unbroken, resumed, strict=True):
        assert b["losses"] == pytest.approx(a["losses"], rel=ROUNDING)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["from_fsdp_1", "from_fsdp_3", "fsdp_from_ddp_3"])
def test_and_between_ddp_and_fsdp(more_runs, name):
    goes_on(more_runs, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fp32_2", "fp32_3"])
def test_float32_agrees_from_the_same_state(more_runs, name):
    """Its last bit of 6e-8, times the root of the 100,000 terms that the longest of its sums have."""
    one, several = records(more_runs / "fp32_1")[0], records(more_runs / name)[0]
    assert several["losses"] == pytest.approx(one["losses"], rel=2e-5)
    assert several["grad_norm"] == pytest.approx(one["grad_norm"], rel=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bf16_2", "bf16_3"])
def test_bf16_agrees_within_its_three_digits(more_runs, name):
    """Four updates, and five of its last bits of 0.4 %."""
    assert losses(more_runs / name) == pytest.approx(losses(more_runs / "bf16_1"), rel=2e-2)
    assert losses(more_runs / name)[0] != pytest.approx(losses(more_runs / "fp32_1")[0], rel=1e-5)  # bfloat16 it was


@pytest.mark.slow
def test_evaluation_is_the_same_to_the_last_bit_and_every_sample_counts_once(further_runs):
    """From the same checkpoint; 41 images, 205 captions and 35 questions divide by neither 2 nor 3."""
    evaluates_alike(further_runs, 2)


def evaluates_alike(runs, processes):
    one, several = (results(runs / f"retrieval_{n}") for n in (1, processes))
    assert one and several == one
    a, b = (load_file(runs / f"retrieval_{n}/predictions/test_flickr30k.safetensors")["scores"] for n in (1, processes))
    assert a.shape == (41, 205) and (a == b).all()
    rows = [json.loads((runs / f"vqa_{n}/predictions/minival_vqa2.json").read_text()) for n in (1, processes)]
    ids = [[row["question_id"] for row in part] for part in rows]
    assert len(ids[0]) == len(set(ids[0])) == 35 and ids[1] == ids[0]
    assert [len((runs / f"vqa_{n}/evaluations.jsonl").read_text().splitlines()) for n in (1, processes)] == [1, 1]
