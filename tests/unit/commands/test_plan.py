"""`pixelbert-plan`: what it prints of shipped configurations, and what it refuses."""

import json

import pytest
from conftest import ROOT

from pixelbert_plugin.commands import plan
from pixelbert_plugin.config import shipped

CONFIGS = ROOT / "projects/pixelbert/configs"
MINI = f"config={CONFIGS}/mini/vqa2.yaml"

pytest.importorskip("torch", minversion="2.14")  # which a plan needs


def run(capsys, *arguments: str) -> str:
    assert plan.main(list(arguments)) == 0
    return capsys.readouterr().out


def numbers(capsys, *arguments: str) -> dict:
    return json.loads(run(capsys, *arguments, "format=json"))


def test_a_plan_adds_up(capsys):
    found = numbers(capsys, MINI, "gpus=2xH100", "samples=8000", "price_per_gpu_hour=3", "rate=0.001")
    memory = found["memory"]
    total = memory.pop("total")
    assert total == sum(memory.values()) and found["fit"]["needed"] >= total and found["fit"]["fits"]
    assert memory["ddp_buckets"] == memory["gradients"] == 4 * sum(found["parameters"].values())  # every weight is trained
    # 8,000 samples, 256 an update, 4 epochs, evaluated twice in each
    assert (found["course"]["updates"], found["course"]["evaluations"]) == (4 * 32, 8)
    hours = 4 * 8000 * found["sample_operations"] / (0.001e12 * 2 * 3600)
    assert found["hours"]["training"] == pytest.approx(hours)
    assert found["hours"]["price"] == pytest.approx(3 * 2 * (hours + found["hours"]["evaluation"]))
    assert found["update_operations"] == pytest.approx(256 * found["sample_operations"])
    assert found["update"]["micro_batch_size"] == 128 and found["fit"]["micro_batches"] == 1


@pytest.mark.slow
def test_the_same_twice_costs_the_same_whatever_the_gpus_and_their_memory(capsys):
    one, four = (numbers(capsys, MINI, f"gpus={gpus}", "samples=8000", "rate=1") for gpus in ("1xT4", "4xT4"))
    assert one["hours"]["training"] == pytest.approx(4 * four["hours"]["training"], rel=0.03)
    assert one["sample_operations"] == pytest.approx(four["sample_operations"], rel=0.03)
    sharded = numbers(capsys, MINI, "gpus=4xT4", "samples=8000", "training.parallel=fsdp")
    assert sharded["memory"]["optimizer_state"] == pytest.approx(four["memory"]["optimizer_state"] / 4, rel=0.01)
    assert sharded["memory"]["ddp_buckets"] == 0


@pytest.mark.slow
def test_what_does_not_fit_says_what_would(capsys):
    """Pre-training keeps more than 2 GB a micro-batch: 128 pairs do not go into 6 GB, and a few do."""
    text = run(capsys, f"config={CONFIGS}/pretrain.yaml", "gpus=1x6GB@50")
    assert "does NOT fit" in text
    largest = next(line for line in text.splitlines() if "largest that fits" in line)
    pairs = int(largest.split("│")[1].split(",")[0])
    assert 2 <= pairs < 128 and pairs % 2 == 0
    assert "not even one sample" in run(capsys, f"config={CONFIGS}/pretrain.yaml", "gpus=1x2GB@50")


@pytest.mark.slow
def test_it_says_what_it_assumed(capsys):
    text = run(capsys, MINI, "gpus=1xL4", "env.data_dir=/nowhere")
    for part in ("0.35 utilization, a guess", "3,129 answers", "a vocabulary of 30,522 entries", "images of 480 × 640 pixels"):
        assert part in text, part
    assert "samples=N says how many there are" in text and "in all" in text and "cost" not in text


def test_data_that_are_here_are_counted(tiny_config, capsys):
    found = numbers(capsys, f"config={tiny_config}", "gpus=1xL4")
    assert found["course"] == {"epoch_samples": 36, "updates": 4, "samples": 32, "evaluations": 2}
    assert not any("vocabulary" in line or "answers" in line or "official" in line for line in found["assumed"])
    assert found["parameters"]["text_encoder"] < 30_522 * 32


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(shipped.configurations()))
def test_every_shipped_configuration_can_be_planned(path, capsys):
    found = numbers(capsys, f"config={ROOT / path}", "gpus=8xH100", "samples=10000", "price_per_gpu_hour=1")
    assert found["hours"]["training"] > 0 and found["hours"]["price"] > 0 and found["fit"]["largest"] > 0
    assert found["memory"]["activations"] > 0 and found["update_operations"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gpus=8xH100"], "error: config=PATH is given 0 times; name the configuration to plan (--help)"),
        ([MINI], "error: gpus: is not set, and has no default; set it"),
        ([MINI, "gpus=8xMI300"], "error: gpus: '8xMI300': no such card is known (known: H200, H100,"),
        ([MINI, "gpus=1xL4", "utilization=1.5"], "error: utilization: 1.5 is invalid: must be at most 1"),
        ([MINI, "gpus=1xL4", "utilization=0.5", "rate=9"], "error: utilization: 0.5 is invalid: rate is measured"),
        ([MINI, "gpus=1xL4", "rate=0"], "error: rate: 0.0 is invalid: must be above 0"),
        ([MINI, "gpus=1xL4", "price_per_gpu_hour=-1"], "error: price_per_gpu_hour: -1.0 is invalid: must be at least 0"),
        ([MINI, "gpus=1xL4", "image_size=640"], "error: image_size: '640' is invalid: write height x width in pixels"),
        ([MINI, "gpus=1xL4", "format=xml"], "error: format: 'xml' is invalid: must be table or json"),
        (
            [MINI, "gpus=1xT4", "training.precision=bf16"],
            "error: training.precision: 'bf16': T4 has no bf16; it has ",
        ),
        ([MINI, "gpus=512xL4"], "error: training.batch_size: 256 pairs per update are fewer than the 512 GPUs"),
        ([MINI, "gpus=1xL4", "training.batch_sise=3"], "error: training.batch_sise: unknown key; did you mean batch_size?"),
    ],
)
def test_wrong_input_is_one_line(arguments, message, capsys):
    assert plan.main(arguments) == 2
    out, error = capsys.readouterr()
    assert not out and error.count("\n") == 1 and error.startswith(message), error


def test_the_help_names_every_option_of_its_own(capsys):
    import dataclasses

    from pixelbert_plugin.planning.cards import CARDS
    from pixelbert_plugin.planning.options import PlanConfig

    with pytest.raises(SystemExit) as caught:
        plan.main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(f"{field.name}=" in text for field in dataclasses.fields(PlanConfig)) and all(c.name in text for c in CARDS)
