"""`pixelbert-predict` with what a run has trained: every name of a checkpoint, and a real kill."""

import csv
import json
import time

import predict_programs
import pytest
import torch
from huggingface_hub import constants
from preloaded import start

from pixelbert_plugin import config as configuration
from pixelbert_plugin import load
from pixelbert_plugin.commands import predict
from pixelbert_plugin.run import export


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    return export(configuration.load(str(tiny_run / "config.yaml")), tmp_path_factory.mktemp("exported") / "vqa.safetensors")


@pytest.fixture(scope="module")
def for_transformers(tiny_run, tmp_path_factory):
    return export(configuration.load(str(tiny_run / "config.yaml")), tmp_path_factory.mktemp("exported") / "vqa_hf", "hf")


@pytest.fixture
def hub_cache(exported, for_transformers, tmp_path, monkeypatch):
    """A cache as the hub's client leaves it, which has the exported file as someone/vqa, the folder as someone/vqa_hf; and no
    network."""
    for name, files in (("vqa", [exported]), ("vqa_hf", sorted(for_transformers.iterdir()))):
        repository = tmp_path / f"hub/models--someone--{name}"
        for folder in ("refs", "blobs", "snapshots/0123abc"):
            (repository / folder).mkdir(parents=True)
        (repository / "refs/main").write_text("0123abc")
        for number, file in enumerate(files):
            (repository / f"blobs/{number}").write_bytes(file.read_bytes())
            (repository / f"snapshots/0123abc/{file.name}").symlink_to(f"../../blobs/{number}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)


def test_every_name_of_a_checkpoint_answers_alike(tiny_run, exported, for_transformers, hub_cache, vqa2_root, capsys):
    """As the exact model does, up to what folding the norms rounds."""
    image, question = next((vqa2_root / "coco/val2014").iterdir()), "What color is the disc?"
    expected = {answer.text: answer.probability for answer in load(tiny_run).answer(image, question, 100).answers}
    printed = []
    for checkpoint in (tiny_run, exported, for_transformers, "someone/vqa", "someone/vqa_hf"):
        asked = [f"checkpoint={checkpoint}", f"image={image}", f"question={question}", "device=cpu", "top_k=100", "format=json"]
        assert predict.main(asked) == 0
        printed.append(json.loads(capsys.readouterr().out))
    assert all(answers == printed[0] for answers in printed[1:])
    assert {row["answer"]: row["probability"] for row in printed[0]} == pytest.approx(expected, abs=1e-5)
    assert predict.main([f"checkpoint={tiny_run}", f"image={image}", f"question={question}", "device=gpu"]) == 2
    assert "error: device='gpu': " in capsys.readouterr().err
    assert predict.main(["checkpoint=someone/else", f"image={image}", f"question={question}"]) == 2
    assert (
        "error: checkpoint='someone/else': no such checkpoint folder and no exported file here, and not available from the hub "
        "(HF_HUB_OFFLINE is set, and its cache has none)" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_killed_it_goes_on_and_gives_the_same_bytes(tiny_run, vqa2_root, tmp_path, capsys):
    images = sorted((vqa2_root / "coco/val2014").iterdir())
    with (tmp_path / "questions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "question"])
        for number in range(9):
            image = "nowhere.jpg" if number == 1 else images[number % len(images)].name
            writer.writerow([image, ("What color is the disc?", "Is the disc red?")[number % 2]])
    asked = [f"checkpoint={tiny_run}", f"input={tmp_path / 'questions.csv'}", f"images={images[0].parent}", "batch_size=2"]
    asked += ["device=cpu"]
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    assert predict.main([*asked, f"output={whole}"]) == 0
    partial, printed = tmp_path / "killed.jsonl.partial", tmp_path / "printed.txt"
    arguments = [str(torch.get_num_threads()), *asked, f"output={killed}"]
    process = start(predict_programs.predict_then_stall, arguments, printed)
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.read_bytes().endswith(b"half a ")):
        assert process.is_alive() and time.monotonic() < deadline, printed.read_text()
        time.sleep(0.02)
    assert predict.main([*asked, f"output={killed}"]) == 2  # it lives
    assert "another process writes it now" in capsys.readouterr().err
    process.kill()
    process.join()
    assert partial.read_bytes().count(b"\n") == 5 and not killed.exists()  # what is asked, and two batches
    assert predict.main([*asked, f"output={killed}"]) == 0
    assert killed.read_bytes() == whole.read_bytes() and len(killed.read_text().splitlines()) == 8
    for end in (".errors.jsonl", ".meta.json"):
        assert (tmp_path / f"killed.jsonl{end}").read_bytes() == (tmp_path / f"whole.jsonl{end}").read_bytes()
    assert not partial.exists()
