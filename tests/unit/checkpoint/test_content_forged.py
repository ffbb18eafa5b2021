"""What somebody else put into a checkpoint or an exported file, its digests made right: used as it is, or one line."""

import dataclasses
import json
import os
import pickle
import random
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint import content, export, restore, tensor_index, tensor_store
from pixelbert_plugin.checkpoint.checkpoints import CheckpointMetadata, Checkpoints, TrainState
from pixelbert_plugin.data.vocabularies import take_vocabulary
from pixelbert_plugin.errors import UserError
from unit.checkpoint.test_checkpoints import seal
from unit.training.test_step import Linear, trainer

WRONG = [3, -1, 1e300, True, None, "x", "\ud800", [], {}, [1], {"a": 1}, {"a": None}, 10**30]
SOURCE = {"key": "checkpoint.pretrained", "path": "/srv/somebody/save/pre/checkpoints/best", "update": 40}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint that says all that a checkpoint says."""
    text = registry.build("processor", "bert_tokenizer", {}, "p")
    text.fit(["a disc", "a disc"])
    about = CheckpointMetadata(
        "env: {user_dir: /srv/somebody/plugin, data_dir: /srv/somebody/data}\n"
        "checkpoint: {pretrained: /x, max_to_keep: 2}\nseed: 1\n",
        {"text": text.state_dict(), "answers": {"answers": ["yes", "no"]}},
        {"torch": "x"},
        [SOURCE],
    )
    built = trainer(Linear())
    state = TrainState(
        update=2, samples=16, seconds=1.5, best=0.5, best_update=2, metrics={"a/b": 0.5}, skipped_images={"p": 1}
    )
    return Checkpoints(tmp_path_factory.mktemp("whole"), 2).save(
        built.model, built.step.optimizers, built.step.precision, state, about
    )


def only_user_errors(path) -> str:
    """Read all of it as a run does. The UserError's message, "" where it is readable."""
    try:
        found = restore.read_content(path, "checkpoint.resume_file")
        for name, kind in (("text", "bert_tokenizer"), ("answers", "answers")):
            if name in found.get("processors", {}):
                processor = registry.build("processor", kind, {}, "p")
                take_vocabulary(name, processor, found["processors"][name], str(path))
        built = trainer(Linear())
        restore.load_weights(path, built.model, "checkpoint.resume_file")
        restore.load_training(path, found, built.model, built.step.optimizers, built.step.precision, "checkpoint.resume_file")
        json.dumps(found, ensure_ascii=False).encode()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return str(error)
    return ""


def places(node, path=()):
    """The path of every member of nested JSON."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from places(value, (*path, key))


def test_no_member_of_the_metadata_makes_a_traceback(whole, tmp_path, monkeypatch):
    path = shutil.copytree(whole, tmp_path / "c")
    assert only_user_errors(path) == ""
    state = json.loads((path / "state.json").read_text())
    tensors = restore.read_model(path)
    monkeypatch.setattr(restore, "read_model", lambda _: tensors)  # they are not what is forged here
    monkeypatch.setattr(tensor_store, "read", lambda into, folder: None)
    refused, draw = 0, random.Random(0)
    for place in places(state):
        for wrong in (*draw.sample(WRONG, 5), "deleted"):
            forged = json.loads(json.dumps(state))
            node = forged
            for key in place[:-1]:
                node = node[key]
            if wrong == "deleted":
                del node[place[-1]]
            else:
                node[place[-1]] = wrong
            (path / "state.json").write_text(json.dumps(forged))
            seal(path)
            refused += only_user_errors(path) != ""
    assert refused > 80


@pytest.mark.parametrize(
    "text", ['{"processors": 3}', "[" * 100_000, "NaN", '{"state": {}, "processors": 3}', '{"state": {"update": 1e999}}', "\0"]
)
def test_metadata_that_is_none(whole, tmp_path, text):
    path = shutil.copytree(whole, tmp_path / "c")
    (path / "state.json").write_text(text)
    seal(path)
    assert "not a checkpoint of pixelbert-run" in only_user_errors(path) or text.startswith('{"state": {}')
    assert only_user_errors(path)


def lacks_a_chunk(index, name):
    index.state_dict_metadata[name].chunks.clear()


def lacks_its_place(index, name):
    for key in [key for key in index.storage_data if key.fqn == name]:
        del index.storage_data[key]


def is_larger(index, name):
    index.state_dict_metadata[name].size = torch.Size([4, 30])


def is_larger_by_far(index, name):
    entry = index.state_dict_metadata[name]
    entry.size = torch.Size([10**9, 10**9])
    entry.chunks[0] = dataclasses.replace(entry.chunks[0], sizes=entry.size)


def overlaps(index, name):
    chunk = index.state_dict_metadata[name].chunks[0]
    half = dataclasses.replace(chunk, sizes=torch.Size([chunk.sizes[0] // 2, *chunk.sizes[1:]]))
    index.state_dict_metadata[name].chunks[:] = [half, half]


def leads_past_the_end(index, name):
    for key, place in index.storage_data.items():
        if key.fqn == name:
            place.offset += 10**6


def has_another_type(index, name):
    index.state_dict_metadata[name].chunks = 3


@pytest.mark.parametrize(
    "forge", [lacks_a_chunk, lacks_its_place, is_larger, is_larger_by_far, overlaps, leads_past_the_end, has_another_type]
)
def test_an_index_whose_tensors_are_not_whole_is_refused(whole, tmp_path, forge):
    """DCP fills in what it finds a chunk for, and leaves the rest as the memory was."""
    path = shutil.copytree(whole, tmp_path / "c")
    index = tensor_index.read_index(path)
    forge(index, "model/cnn.weight")
    (path / ".metadata").write_bytes(pickle.dumps(index))
    seal(path)
    line = only_user_errors(path)
    assert "not a checkpoint of pixelbert-run" in line and ".metadata" in line


@pytest.mark.parametrize(
    ("size", "chunks", "expected"),
    [
        ([], [([], [])], True),
        ([], [], False),
        ([4, 2], [([0, 0], [3, 2]), ([3, 0], [1, 2])], True),
        ([4, 2], [([3, 0], [1, 2]), ([0, 0], [3, 2])], True),
        ([4, 2], [([0, 0], [3, 2])], False),
        ([4, 2], [([0, 0], [2, 2]), ([1, 0], [2, 2])], False),  # as many elements, but one row twice
        ([4, 2], [([0, 0], [4, 1]), ([0, 1], [4, 1])], True),
        ([4, 2], [([0, 0], [5, 2])], False),
        ([0, 2], [([0, 0], [0, 2])], True),
        ([2, 2], [([0, 0], [2, 1]), ([0, 1], [1, 1]), ([1, 1], [1, 1])], True),
        ([2, 2], [([-1, 0], [2, 2])], False),
    ],
)
def test_chunks_cover_a_tensor(size, chunks, expected):
    """Compared with marking every element."""
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

    made = [ChunkStorageMetadata(torch.Size(low), torch.Size(length)) for low, length in chunks]
    assert tensor_index.is_covered(torch.Size(size), made) is expected


def test_a_file_of_tensors_that_holds_anything_else_is_one_line(whole, tmp_path):
    path = shutil.copytree(whole, tmp_path / "c")
    file, draw = path / "__0_0.safetensors", random.Random(0)
    content = file.read_bytes()
    forgeries = [pickle.dumps({"a": 1}) * 2000, b"\0" * len(content), bytes(reversed(content)), content[: len(content) // 2]]
    for _ in range(12):
        damaged = bytearray(content)
        for _ in range(20):
            damaged[draw.randrange(len(content))] = draw.randrange(256)
        forgeries.append(bytes(damaged))
    for forged in forgeries:
        file.write_bytes(forged)
        seal(path)
        only_user_errors(path)
    file.write_bytes(forgeries[0])
    seal(path)
    assert str(path) in only_user_errors(path)


@pytest.mark.parametrize("name", ["digests.json", "state.json", "__0_0.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(whole, tmp_path, name):
    path = shutil.copytree(whole, tmp_path / "c")
    (path / name).unlink()
    os.mkfifo(path / name)
    assert f"not a whole checkpoint: {name} is missing" in only_user_errors(path)


@pytest.fixture
def exported(whole, tmp_path):
    return export.write(tmp_path / "net.safetensors", restore.read_model(whole), restore.read_content(whole, "k"))


def test_a_file_in_bf16_is_read_as_float32_of_it(exported, whole, tmp_path):
    """Matrices are rounded and take half the room; vectors are as they were; its digest is over what it holds."""
    weights = restore.read_model(whole)
    weights |= {"wide.weight": torch.randn(300, 200), "wide.bias": torch.randn(300), "steps": torch.tensor(3)}
    file = export.write(tmp_path / "half.safetensors", weights, restore.read_content(whole, "k"), "bf16")
    assert 120_000 < file.stat().st_size - exported.stat().st_size < 123_000
    restore.read_content(file, "k")
    for name, value in restore.read_model(file).items():
        expected = weights[name].bfloat16().float() if weights[name].dim() > 1 else weights[name]
        assert torch.equal(value, expected) and value.dtype == weights[name].dtype, name
    assert load_file(file)["wide.weight"].dtype == torch.bfloat16
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="not as it was written"):
        restore.read_content(file, "k")


def test_a_changed_bit_in_an_exported_file_is_refused(exported):
    """Each bit of the header, and bits of the tensors."""
    content, draw = exported.read_bytes(), random.Random(0)
    size = int.from_bytes(content[:8], "little")
    bits = draw.sample(range(8 * (8 + size)), 250) + draw.sample(range(8 * (8 + size), 8 * len(content)), 50)
    restore.read_content(exported, "k")
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        exported.write_bytes(damaged)
        with pytest.raises(UserError, match=r"not as it was written|not a file that pixelbert-run --export wrote"):
            restore.read_content(exported, "k")


def test_an_exported_file_without_a_digest_is_an_earlier_versions_or_refused(exported, whole):
    with safe_open(exported, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(exported), exported, {name: text for name, text in metadata.items() if "sha256" not in name})
    with pytest.raises(UserError, match="not as it was written"):
        restore.read_content(exported, "k")
    old = json.dumps({"config": "a: 1", "processors": {}, "state": {}, "versions": {}})
    save_file(load_file(exported), exported, {"format": "pt", "pixelbert_plugin": old})
    assert restore.read_content(exported, "k")["config"] == "a: 1"


def test_an_exported_file_says_nothing_of_this_machine_and_can_be_read_by_others(exported):
    with safe_open(exported, "pt") as file:
        assert "somebody" not in str(file.metadata())
    found = restore.read_content(exported, "k")
    assert found["config"] == "checkpoint:\n  max_to_keep: 2\nseed: 1\nenv:\n  user_dir: plugin\n"
    assert found["started_from"] == [{**SOURCE, "path": "pre/checkpoints/best"}]
    (exported.parent / "plain").write_text("")
    assert exported.stat().st_mode == (exported.parent / "plain").stat().st_mode


def test_the_content_of_earlier_versions_is_read():
    content.parse('{"state": {"update": 3}, "processors": {}, "versions": {}}')
