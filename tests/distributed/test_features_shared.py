"""Kept features on 1 and 2 processes, DDP and FSDP2: the losses of a run without them, in float64 within rounding."""

from pathlib import Path

import pytest
from distributed_runs import losses, records, results, run_all
from test_exactness import CONFIGS, EXACT, ROUNDING, UNEVEN
from test_mini import SIZES

from pixelbert_plugin.miniature.options import WorldConfig
from pixelbert_plugin.miniature.world import write_world

pytestmark = pytest.mark.slow

RETRIEVAL = [
    f"config={CONFIGS}/flickr30k_retrieval.yaml",
    "training.batch_size=9",
    "training.micro_batch_size=4",
    "training.max_updates=3",
    "training.evaluation_interval=3",
    "evaluation.batch_size=64",
    "optimizer.transformer.params.eps=1e-3",
    "optimizer.transformer.params.lr=2e-4",
    "run_type=train_val",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("kept")
    write_world(WorldConfig(out=str(root / "mini"), processes=1, **{**SIZES, **UNEVEN}))

    def command(name: str, *options: str) -> list[str]:
        paths = [f"env.data_dir={root}/mini", f"env.save_dir={root}/{name}", f"env.cache_dir={root}/cache_{name}"]
        return [*EXACT, *RETRIEVAL, *paths, *options]

    cached = "training.cache_features=true"
    run_all(2, [command("ddp", cached), command("fsdp", cached, "training.parallel=fsdp")], [], root)
    again = [cached, "training.parallel=fsdp", f"env.cache_dir={root}/cache_ddp"]  # each finds what the other has kept
    run_all(2, [command("again", *again)], [], root)
    run_all(1, [command("without"), command("alone", cached)], [], root)
    return root


@pytest.mark.parametrize("name", ["alone", "ddp", "fsdp", "again"])
def test_losses_and_metrics_are_those_without(runs, name):
    assert losses(runs / name) == pytest.approx(losses(runs / "without"), rel=ROUNDING)
    norms = [[record["grad_norm"] for record in records(runs / each)] for each in (name, "without")]
    assert norms[0] == pytest.approx(norms[1], rel=ROUNDING)
    assert results(runs / name) == pytest.approx(results(runs / "without"))


def test_two_processes_share_what_they_keep(runs):
    counts = {}
    for name in ("alone", "ddp", "fsdp"):
        files = [path for path in (runs / f"cache_{name}" / "features").rglob("*") if path.is_file()]
        assert not any(path.name.startswith(".") for path in files)
        counts[name] = len(files)
    assert counts["ddp"] == counts["fsdp"] == counts["alone"] > 6 + 10  # the images of val, and of some of the 27 samples
    assert not (runs / "cache_again").exists() and not (runs / "cache_without" / "features").exists()
