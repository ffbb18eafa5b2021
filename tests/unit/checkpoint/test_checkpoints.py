"""Checkpoints: whole or refused, never executed, exact to the last bit."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch import nn

from pixelbert_plugin.checkpoint import export, restore, tensor_index, tensor_store
from pixelbert_plugin.checkpoint.checkpoints import CheckpointMetadata, Checkpoints, TrainState, problem
from pixelbert_plugin.errors import UserError
from pixelbert_plugin.registry import yaml_text
from pixelbert_plugin.system.digest import digest_of
from unit.training.test_step import Linear, rows, trainer

METADATA = CheckpointMetadata("a: 1\n", {"text": {"v": ["ä"]}}, {"torch": "x"})


def save(folder, update, best=False, keep=2, model=None, built=None):
    built = built or trainer(model or Linear())
    state = TrainState(update=update, samples=update * 8, best_update=update if best else None, best=0.5)
    folder.parent.mkdir(parents=True, exist_ok=True)  # of the run, which claims it
    checkpoints = Checkpoints(folder, keep)
    path = checkpoints.save(built.model, built.step.optimizers, built.step.precision, state, METADATA)
    return checkpoints, path


def test_checkpoint_restores_weights_optimizers_and_position_bit_for_bit(tmp_path):
    first = trainer(Linear())
    for update in range(1, 4):
        first.step([rows(0, 8)], update, 0.0)
    _, path = save(tmp_path, 3, built=first)
    content = restore.read_content(path, "k")
    assert content["processors"] == {"text": {"v": ["ä"]}}
    second = trainer(Linear())
    restore.load_weights(path, second.model, "k")
    state = restore.load_training(path, content, second.model, second.step.optimizers, second.step.precision, "k")
    assert (state.update, state.samples) == (3, 24)
    for update in range(4, 7):
        a, _ = first.step([rows(0, 8)], update, 0.0)
        b, _ = second.step([rows(0, 8)], update, 0.0)
        assert all(torch.equal(a[part], b[part]) for part in a)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))


def test_only_the_newest_and_the_best_are_kept(tmp_path):
    for update in (10, 20, 30, 40):
        checkpoints, _ = save(tmp_path, update, best=update == 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "update_000010", "update_000030", "update_000040"]
    assert checkpoints.best().resolve().name == "update_000010" and checkpoints.newest().name == "update_000040"


def test_newest_is_by_number_not_by_name(tmp_path):
    save(tmp_path, 999_999)
    checkpoints, _ = save(tmp_path, 1_000_000, keep=1)
    (tmp_path / "update_notes").mkdir()
    assert checkpoints.newest().name == "update_1000000" and not (tmp_path / "update_999999").exists()


@pytest.mark.parametrize("name", ["__0_0.safetensors", ".metadata", "state.json", "config.yaml", "digests.json"])
@pytest.mark.parametrize("how", ["flip", "tear", "delete"])
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_it_used(tmp_path, caplog, name, how):
    save(tmp_path, 1)
    checkpoints, path = save(tmp_path, 2)
    file = path / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    {"flip": lambda: file.write_bytes(content), "tear": lambda: file.write_bytes(content[:5]), "delete": file.unlink}[how]()
    assert checkpoints.newest().name == "update_000001"
    assert f"checkpoint {path} is invalid" in caplog.text
    with pytest.raises(UserError, match="not a whole checkpoint"):
        restore.read_content(path, "checkpoint.resume_file")


def test_no_whole_checkpoint_at_all_is_an_error_not_a_silent_start(tmp_path):
    checkpoints, path = save(tmp_path, 2)
    (path / "state.json").unlink()
    with pytest.raises(UserError, match="none of its 1 checkpoints is whole"):
        checkpoints.newest()


def test_a_write_that_fails_leaves_the_former_checkpoint_whole(tmp_path, monkeypatch):
    checkpoints, path = save(tmp_path, 1, best=True)

    def full(tensors, folder, group):
        (folder / "__0_0.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_store, "write", full)
    with pytest.raises(UserError, match=r"update_000002: cannot be written \(No space left on device\)"):
        save(tmp_path, 2, best=True)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["best", "update_000001"]
    assert problem(checkpoints.newest()) is None and checkpoints.best().resolve() == path


def test_best_is_linked_again_after_a_kill_before_the_linking(tmp_path):
    checkpoints, path = save(tmp_path, 1, best=True)
    (tmp_path / "best").unlink()  # as if killed between saving and linking
    state = TrainState(update=1, best_update=1)
    checkpoints.link_best(state)
    assert checkpoints.best().resolve() == path
    (tmp_path / "best").unlink()
    built = trainer(Linear())
    for update in (2, 3, 4):
        state = TrainState(update=update, best_update=1)
        checkpoints.save(built.model, built.step.optimizers, built.step.precision, state, METADATA)
    assert checkpoints.best().resolve() == path  # linked before pruning, so not pruned


def test_a_leftover_of_a_killed_write_is_ignored_and_swept(tmp_path):
    save(tmp_path, 1)
    leftover = tmp_path / ".update_000002.partial"
    leftover.mkdir()
    (leftover / "__0_0.safetensors").write_bytes(b"half")
    checkpoints, _ = save(tmp_path, 3)
    assert not leftover.exists() and checkpoints.newest().name == "update_000003"


def test_weights_of_another_model_are_refused(tmp_path):
    _, path = save(tmp_path, 1)
    other = nn.Linear(2, 2)
    with pytest.raises(UserError, match="its weights are of another model"):
        restore.load_weights(path, other, "k")
    part = Linear()
    del part.cnn  # what an evaluation may do without is only what it names
    restore.load_weights(path, part, "k", spare=("cnn.",))
    with pytest.raises(UserError, match=r"tensors that the model has not, such as cnn\."):
        restore.load_weights(path, part, "k", spare=("rest.",))


class Attack:
    """Pickled, it creates a file when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def seal(path: Path) -> None:
    """Make the digests right, as somebody would who means harm."""
    digests = {file.name: digest_of(file) for file in path.iterdir() if file.name != "digests.json"}
    (path / "digests.json").write_text(json.dumps(digests))


def hostile_index(path, mark):
    (path / ".metadata").write_bytes(pickle.dumps(Attack(mark)))


def hostile_inside_the_index(path, mark):
    index = tensor_index.read_index(path)
    index.planner_data = Attack(mark)
    (path / ".metadata").write_bytes(pickle.dumps(index))


def hostile_bytes_entry(path, mark):
    """DCP stores what is no tensor by pickle, and loads it so: a whole checkpoint of DCP's own making."""
    for file in (*path.glob("*.safetensors"), path / ".metadata"):
        file.unlink()
    dcp.save({"model/cnn.weight": torch.zeros(4, 3), "model/cnn.bias": Attack(mark)}, checkpoint_id=path, no_dist=True)


def hostile_way_out(path, mark):
    index = tensor_index.read_index(path)
    for entry in index.storage_data.values():
        entry.relative_path = "../other/__0_0.safetensors"
    (path / ".metadata").write_bytes(pickle.dumps(index))


def hostile_tensor(path, mark, file="__0_0.safetensors"):
    """The index is whole; the file of tensors holds a pickle where the first tensor was."""
    index = tensor_index.read_index(path)
    aside = path / "attack.pt"
    torch.save(Attack(mark), aside)
    content = aside.read_bytes()
    aside.unlink()
    (path / file).write_bytes(content)
    for entry in index.storage_data.values():
        entry.offset, entry.length = 0, len(content)
    (path / ".metadata").write_bytes(pickle.dumps(index))


def hostile_former_tensor(path, mark):
    """The same in a file as DCP's own writer leaves it, whose tensors are pickles."""
    tensors = tensor_store.read_all(path, "")
    for file in (*path.glob("*.safetensors"), path / ".metadata"):
        file.unlink()
    dcp.save(tensors, checkpoint_id=path, no_dist=True)
    hostile_tensor(path, mark, "__0_0.distcp")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["bare", "sealed"])
@pytest.mark.parametrize(
    "attack",
    [hostile_index, hostile_inside_the_index, hostile_bytes_entry, hostile_way_out, hostile_tensor, hostile_former_tensor],
)
def test_a_hostile_checkpoint_is_refused_and_nothing_in_it_runs(tmp_path, attack, how):
    mark = tmp_path / "executed"
    _, path = save(tmp_path / "run", 1)
    attack(path, mark)
    if how == "sealed":
        seal(path)
    with pytest.raises(UserError) as refusal:
        content = restore.read_content(path, "checkpoint.resume_file")
        built = trainer(Linear())
        restore.load_weights(path, built.model, "checkpoint.resume_file")
        restore.load_training(path, content, built.model, built.step.optimizers, built.step.precision, "checkpoint.resume_file")
    assert str(path) in str(refusal.value) and len(str(refusal.value).splitlines()) == 1
    assert not mark.exists()


def test_the_attacks_would_work_on_a_plain_loader(tmp_path):
    """So that the test above can fail."""
    mark = tmp_path / "executed"
    pickle.loads(pickle.dumps(Attack(mark)))
    assert mark.exists()


@pytest.mark.parametrize(
    "state",
    ["[]", "{}", '{"state": 3}', '{"state": {"update": 1, "surprise": 2}}', '{"state": {"update": "many"}}', "nonsense"],
)
def test_a_malformed_state_is_one_line(tmp_path, state):
    _, path = save(tmp_path, 1)
    (path / "state.json").write_text(state)
    seal(path)
    with pytest.raises(UserError, match="not a checkpoint of pixelbert-run") as refusal:
        restore.read_content(path, "checkpoint.resume_file")
    assert len(str(refusal.value).splitlines()) == 1


def test_an_export_is_one_file_of_float32_weights_with_what_they_need(tmp_path):
    built = trainer(Linear())
    _, path = save(tmp_path, 3, built=built)
    content = restore.read_content(path, "k")
    file = export.write(tmp_path / "out/net.safetensors", restore.read_model(path), content)
    weights = load_file(file)
    assert weights.keys() == built.model.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in built.model.state_dict().items())
    again = restore.read_content(file, "checkpoint.pretrained")
    assert again["config"] == "a: 1\n" and again["processors"] == {"text": {"v": ["ä"]}} and again["state"]["update"] == 3
    assert restore.read_model(file).keys() == weights.keys()


def test_a_file_that_is_no_export_is_one_line(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="not a file that pixelbert-run --export wrote"):
        restore.read_content(tmp_path / "x.safetensors", "checkpoint.pretrained")


def test_an_exports_configuration_reads_back_equal():
    """Text that looks like a number of YAML 1.2 stays text."""
    values = {"task": "1e5", "datasets": ["0o17", "no", "exp #1"], "env": {"user_dir": "/srv/me/plugin.py"}}
    config = yaml_text.value(yaml_text.parse(export.portable({"config": yaml_text.dump(values)})["config"]))
    assert config == values | {"env": {"user_dir": "plugin.py"}}
