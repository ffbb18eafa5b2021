"""MMF's checkpoint files read without MMF; and its configuration made of ours, as far as that needs no MMF."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import write_config

from pixelbert_plugin import config as configuration
from pixelbert_plugin.checkpoint import restore
from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.mmf import checkpoint_reader as mmf_checkpoint


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def mmf_file(path, weights, processors, kind=".ckpt", prefix="model."):
    """As MMF's utils/checkpoint.py writes it: the state dict of the wrapping model, under a prefix of its own with DDP."""
    state = {f"{prefix}{name}": value for name, value in weights.items()}
    state[prefix.removesuffix("model.") + "_extra_state"] = mmf_checkpoint.pack({"processors": processors})
    content = {"model": state, "optimizer": {}, "best_metric_value": float("-inf"), "config": {"model": "pixelbert"}}
    torch.save(content if kind == ".ckpt" else state, path)
    return path


@pytest.fixture(scope="module")
def own(tiny_run, tmp_path_factory) -> Path:
    """The folder of an evaluation of the run's own checkpoint."""
    folder = tmp_path_factory.mktemp("own")
    evaluate(tiny_run / "config.yaml", (tiny_run / "checkpoints/best").resolve(), folder)
    return folder


def evaluate(config, start, folder) -> None:
    assert cli.main([f"config={config}", "run_type=val", f"checkpoint.pretrained={start}", f"env.save_dir={folder}"]) == 0


@pytest.mark.parametrize(("kind", "prefix"), [(".ckpt", "model."), (".pth", "model."), (".ckpt", "module.model.")])
def test_a_run_is_evaluated_from_mmfs_file(own, tiny_run, kind, prefix, tmp_path):
    best = (tiny_run / "checkpoints/best").resolve()
    processors = restore.read_content(best, "key")["processors"]
    file = mmf_file(tmp_path / f"mmf{kind}", restore.read_model(best), processors, kind, prefix)
    evaluate(tiny_run / "config.yaml", file, tmp_path / "mmf")
    for part in ("predictions/val_vqa2.json", "results.json"):
        assert (tmp_path / "mmf" / part).read_text() == (own / part).read_text()


def test_nothing_in_it_is_executed_and_other_files_are_named(tmp_path):
    torch.save({"model": {"model.a": torch.zeros(1)}, "x": Hostile(tmp_path / "made")}, tmp_path / "hostile.ckpt")
    torch.save({"model": {"other.a": torch.zeros(1)}}, tmp_path / "other.ckpt")
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04 torn")
    for name in ("hostile.ckpt", "other.ckpt", "torn.pth"):
        with pytest.raises(UserError, match=f"key='.*{name}': not a checkpoint that MMF wrote with this model") as error:
            restore.read_content(tmp_path / name, "key")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "made").exists()


def test_training_cannot_be_resumed_from_it(tiny_config, tiny_run, tmp_path, capsys):
    best = (tiny_run / "checkpoints/best").resolve()
    file = mmf_file(tmp_path / "m.ckpt", restore.read_model(best), restore.read_content(best, "key")["processors"])
    options = ["checkpoint.resume=true", f"checkpoint.resume_file={file}", f"env.save_dir={tmp_path / 'again'}"]
    assert cli.main([f"config={tiny_config}", *options]) == 2
    assert "Start from its weights with checkpoint.pretrained" in capsys.readouterr().err


def test_without_mmf_the_entry_says_how_to_get_it(tmp_path):
    command = [sys.executable, "-m", "pixelbert_plugin.mmf", "config=x.yaml"]
    environment = {name: value for name, value in os.environ.items() if name != "MMF_CHECKOUT"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if "no such file" in done.stderr:
        pytest.skip("MMF is installed here")
    assert done.returncode == 2 and "docs/mmf.md has the commands that install it" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_needs_no_mmf_and_imports_nothing_heavy():
    code = "import sys; from pixelbert_plugin.mmf import command_line\n"
    code += "try: command_line.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print([name for name in ('torch', 'mmf', 'omegaconf') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and "--print-config" in done.stdout


@pytest.fixture
def translate(monkeypatch):
    """With a registry of MMF's in which `vqa2` and `multi_step` are its own."""
    from pixelbert_plugin.mmf import names, translate

    ours = object()
    held = {"builder": {"vqa2": object(), "pixelbert_vqa2": ours}, "model": {"pixelbert": ours, "pixelbert_pixelbert": ours}}
    held["scheduler"] = {"multi_step": object(), "step": ours, "pixelbert_step": ours}
    for module in (names, translate):
        monkeypatch.setattr(module, "registered", lambda kind: held[kind])
    return translate


def typed(tmp_path, vqa2_root, *options):
    file = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run")
    return configuration.complete(configuration.load(str(file), list(options)))


def test_options_become_mmfs(translate, tmp_path, vqa2_root):
    options = ["training.batch_size=12", "training.micro_batch_size=4", "training.max_grad_norm=2", "training.max_updates=9"]
    early = "training.early_stop={enabled: true, patience: 3}"
    found = translate.to_mmf(typed(tmp_path, vqa2_root, *options, early, "training.evaluation_interval=5"))
    training = found["training"]
    assert (training["batch_size"], training["update_frequency"], training["max_updates"]) == (4, 3, 9)
    assert training["clip_gradients"] and training["max_grad_l2_norm"] == 2 and training["lr_scheduler"] is True
    expected = {"enabled": True, "minimize": False, "patience": 15, "criteria": "val/pixelbert_vqa2/pixelbert/accuracy"}
    assert training["early_stop"] == expected
    assert found["datasets"] == "pixelbert_vqa2" and set(found["dataset_config"]) == {"pixelbert_vqa2"}
    assert found["optimizer"]["type"] == "pixelbert" and set(found["optimizer"]["params"]) == {"cnn", "transformer"}
    assert found["scheduler"]["type"] == "step" and found["model"] == "pixelbert"


def test_our_checkpoint_is_not_a_file_for_mmf_to_resume_from(translate, tmp_path, vqa2_root):
    config = typed(tmp_path, vqa2_root, f"checkpoint.resume_file={tmp_path}", "checkpoint.resume=true")
    with pytest.raises(UserError, match=r"checkpoint.resume_file: .* what is ours is checkpoint.pretrained here"):
        translate.to_mmf(config)


def test_epochs_are_counted_as_our_runner_counts_them(translate, tmp_path, vqa2_root):
    """36 samples: 4.5 batches of 8, so 5 updates an epoch; half an epoch is 18 samples, 3 updates."""
    options = ["training.batch_size=8", "training.micro_batch_size=null", "training.max_updates=null"]
    options.append("training.max_epochs=2.5")
    assert translate.to_mmf(typed(tmp_path, vqa2_root, *options))["training"]["max_updates"] == 2 * 5 + 3


def test_what_is_mmfs_alone_is_handed_on(translate):
    values = yaml.safe_load("""
    datasets: pixelbert_vqa2
    dataset_config: {pixelbert_vqa2: {use: {val: minival}}}
    optimizer: {type: adam_w, params: {lr: 1.0}}
    scheduler: {type: multi_step, params: {}}
    training: {batch_size: 4, tensorboard: true, early_stop: {criteria: x, patience: 2}, typo: 1}
    """)
    known = {"training": {"tensorboard": False, "early_stop": {"criteria": "", "patience": 0}}, "distributed": {"rank": 0}}
    found = translate.take_mmfs(values, known)
    assert found["training"] == {"tensorboard": True, "early_stop": {"criteria": "x"}}
    assert found["optimizer"]["type"] == "adam_w" and found["scheduler"]["type"] == "multi_step"
    assert values["training"] == {"batch_size": 4, "early_stop": {"patience": 2}, "typo": 1}  # ours to refuse
    assert values["datasets"] == ["vqa2"] and values["dataset_config"] == {"vqa2": {"use": {"val": "minival"}}}
    made = {"optimizer": {"type": "pixelbert", "params": {"cnn": {}}}}
    made["training"] = {"fp16": False, "early_stop": {"enabled": True}}
    merged = translate.merged(made, found)
    assert merged["optimizer"] == {"type": "adam_w", "params": {"lr": 1.0}}
    assert merged["training"]["early_stop"] == {"enabled": True, "criteria": "x"} and merged["training"]["fp16"] is False


@pytest.mark.parametrize(
    ("visible", "rank", "own"), [(None, "2", "2"), ("4,6", "1", "6"), (None, None, None), ("4", None, "4")]
)
def test_each_process_of_torchrun_sees_its_own_gpu(visible, rank, own, monkeypatch):
    from pixelbert_plugin.mmf.devices import take_own_gpu

    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("LOCAL_RANK", rank)):
        monkeypatch.setenv(name, value or "")  # so that what is set below is undone too
        if value is None:
            monkeypatch.delenv(name)
    take_own_gpu()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == own


@pytest.mark.parametrize(
    ("gpus", "processes", "device", "message"),
    [
        (2, 1, "auto", "2 GPUs are visible: start one process for each, torchrun --nproc-per-node=2"),
        (1, 1, "cpu", "training.device: 'cpu', but MMF takes a GPU where it sees one"),
        (0, 1, "cuda", "training.device: 'cuda', but torch sees no CUDA device"),
        (0, 2, "auto", "MMF trains several processes on GPUs only"),
    ],
)
def test_devices_that_mmf_cannot_take_are_refused(gpus, processes, device, message, monkeypatch, tmp_path, vqa2_root):
    from pixelbert_plugin.mmf import devices

    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(UserError, match=message):
        devices.prepare(typed(tmp_path, vqa2_root, f"training.device={device}"))
