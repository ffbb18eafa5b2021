"""What is tried before update 1: files, one batch of each split, metrics; and that the try leaves no trace."""

import json
from pathlib import Path

import pytest
from conftest import write_config

from pixelbert_plugin.commands import run as cli
from pixelbert_plugin.data.mixture import Mixture
from pixelbert_plugin.data.samples import Samples
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.training import sanity
from pixelbert_plugin.types import Sample


def sample(number: int, image: str, root=Path(), kind: str = "a") -> Sample:
    return Sample(sample_id=number, image_ids=(image,), images=(root / f"{image}.jpg",), text="is it?", groups={"type": kind})


def test_few_are_of_different_images_with_one_long_text_and_the_criterions_kind():
    samples = [sample(number, str(number // 5)) for number in range(50)] + [sample(50, "9", kind="rare")]
    first, samples = Samples.of(samples[:3]), Samples.of(samples)
    plain = sanity.few(samples, None)
    assert [one.sample_id for one in plain] == [0, 10, 25, 35]  # every image's first, evenly: images 0, 2, 5 and 7
    assert len(plain[0].text.split()) == 2000 and plain[1].text == "is it?"
    assert [one.sample_id for one in sanity.few(samples, ("type", "rare"))] == [0, 10, 25, 35, 50]
    assert [one.sample_id for one in sanity.few(first, ("type", "none"))] == [0]
    assert sanity.wanted_kind("val/vqa2/accuracy[answer_type=yes/no]") == ("answer_type", "yes/no")
    assert sanity.wanted_kind("val/vqa2/accuracy") is None


def test_missing_images_are_found_by_their_folders(tmp_path, caplog):
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_text("")
    samples = [sample(number, name, tmp_path) for number, name in enumerate("abcab")]
    sanity.require_images(Mixture("val", {"set": samples}, {"set": "error"}))
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "c.jpg").unlink()
    with pytest.raises(
        UserError, match=r"b\.jpg: no such file \(and 1 more of the val split are missing\); needed by sample 1 of set"
    ):
        sanity.require_images(Mixture("val", {"set": samples}, {"set": "error"}))
    sanity.require_images(Mixture("val", {"set": samples}, {"set": "skip"}))
    assert "val split of set: 2 of 3 images are missing" in caplog.text
    archive = [sample(1, "x", tmp_path / "a.jpg")]  # its folder is a file, which a processor of its own may read
    sanity.require_images(Mixture("val", {"set": archive}, {"set": "error"}))
    with pytest.raises(UserError, match="needed by sample 1"):
        sanity.require_images(Mixture("val", {"set": [sample(1, "x", tmp_path / "none")]}, {"set": "error"}))


PLUGIN = """
from pixelbert_plugin import registry
from pixelbert_plugin.tasks.vqa import VqaTask

@registry.register_task("NAME")
class Odd(VqaTask):
    def metrics(self, results):
        if FEW or len(results) > 4:
            raise ValueError("a metric of the user's")
        return super().metrics(results)
"""


def fails(capsys, *arguments) -> str:
    assert cli.main([str(argument) for argument in arguments]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    return lines[0]


def odd(tmp_path, vqa2_root, is_few: bool) -> list[str]:
    name = f"odd_{is_few}".lower()  # a process registers each once
    (tmp_path / "odd.py").write_text(PLUGIN.replace("FEW", str(is_few)).replace("NAME", name))
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run", task=name)
    return [f"config={config}", f"env.user_dir={tmp_path / 'odd.py'}", "training.max_updates=2"]


def test_a_metric_that_raises_is_told_before_update_1(capsys, tmp_path, vqa2_root):
    line = fails(capsys, *odd(tmp_path, vqa2_root, True))
    assert "predictions or metrics failed" in line and "odd.py:" in line and "ValueError: a metric of the user's" in line
    assert "the val split of vqa2, tried before training; training.sanity_check=false" in line
    assert not (tmp_path / "run/log.jsonl").exists()


def test_a_metric_that_raises_later_loses_nothing(capsys, tmp_path, vqa2_root):
    line = fails(capsys, *odd(tmp_path, vqa2_root, False))
    assert "a metric of the user's" in line and "in the evaluation after update 2, which is saved" in line
    state = json.loads((tmp_path / "run/checkpoints/update_000002/state.json").read_text())["state"]
    assert state["update"] == 2 and state["is_evaluation_due"]


def test_damaged_and_missing_images_of_val_are_told_before_update_1(capsys, tmp_path, own_vqa2_root):
    config = write_config(tmp_path / "c.yaml", own_vqa2_root, tmp_path / "run")
    image = own_vqa2_root / "coco/val2014/COCO_val2014_000000000900.jpg"
    content = image.read_bytes()
    image.write_bytes(content[:300])
    line = fails(capsys, f"config={config}")
    assert str(image) in line and "the val split of vqa2, tried before training" in line
    image.unlink()
    line = fails(capsys, f"config={config}")
    assert f"{image}: no such file; needed by sample 900000 of vqa2" in line
    assert not (tmp_path / "run/log.jsonl").exists()


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("training.early_stop.monitor=val/vqa2/accuracy[answer_type=nubmer]", "no such metric"),
        ("processors.text.params.max_length=17", "17 tokens is longer than the 16 positions"),
    ],
)
def test_what_an_evaluation_would_tell_is_told_before_update_1(capsys, tmp_path, vqa2_root, option, part):
    config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / "run")
    assert part in fails(capsys, f"config={config}", option)
    assert not (tmp_path / "run/log.jsonl").exists()


@pytest.mark.slow
def test_the_try_leaves_no_trace(tmp_path, vqa2_root):
    def losses(name: str, *options: str) -> list:
        config = write_config(tmp_path / "c.yaml", vqa2_root, tmp_path / name)
        assert cli.main([f"config={config}", "training.max_updates=3", "training.num_workers=1", *options]) == 0
        return [(record["loss"], record["grad_norm"]) for record in map(json.loads, (tmp_path / name / "log.jsonl").open())]

    assert losses("with") == losses("without", "training.sanity_check=false")
