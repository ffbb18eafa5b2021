"""Files of weights that are none: one line with path and remedy, wherever weights are read."""

import collections
import json
import pickle

import pytest
import torch
import transformers
from safetensors.torch import save_file

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint import restore
from pixelbert_plugin.checkpoint.weights import read_state_dict
from pixelbert_plugin.errors import UserError
from unit.checkpoint.test_checkpoints import save

BERT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 30}


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("# not weights\n")


def folder(path):
    path.mkdir()


def python_objects(path):
    torch.save({"model": torch.nn.Linear(2, 2), "epoch": collections.Counter("a")}, path)


def bare_pickle(path):
    path.write_bytes(pickle.dumps({"a": collections.Counter("a")}))


def torn(path):
    torch.save({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def torn_safetensors(path):
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def huge_header(path):
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")


def script(path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def list_of_tensors(path):
    torch.save([torch.zeros(2)], path)


def numbered(path):
    torch.save({0: torch.zeros(2)}, path)


def sparse(path):
    torch.save({"a": torch.zeros(2, 2).to_sparse()}, path)


KINDS = [
    empty,
    text,
    folder,
    python_objects,
    bare_pickle,
    torn,
    torn_safetensors,
    huge_header,
    script,
    list_of_tensors,
    numbered,
    sparse,
]


def one_line(error) -> str:
    told = str(error.value)
    assert "\n" not in told and len(told) < 1000 and "weights_only" not in told and "set `" not in told
    return told


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", ".ckpt"])
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_what_is_no_file_of_weights_is_one_line(tmp_path, make, suffix):
    path = tmp_path / f"x{suffix}"
    make(path)
    with pytest.raises(ValueError, match=r"^weights: ") as error:
        read_state_dict(path)
    told = one_line(error)
    assert str(path) in told
    expected = {empty: "is empty", folder: "is a folder", script: None, list_of_tensors: None, numbered: None, sparse: None}
    if expected.get(make):
        assert expected[make] in told
    if make is python_objects and suffix != ".safetensors":
        assert "could run code" in told and "torch.save(model.state_dict(), PATH)" in told
    with pytest.raises(UserError) as error:
        restore.read_content(path, "checkpoint.pretrained")
    assert f"checkpoint.pretrained={str(path)!r}" in one_line(error)


@pytest.mark.parametrize("name", ["", "no/such/file.pth", "a\0b.pth", "x" * 5000 + ".pth", "/proc/1/mem"])
def test_paths_that_lead_nowhere_are_one_line(name):
    from pathlib import Path

    with pytest.raises(ValueError, match=r"^weights: ") as error:
        read_state_dict(Path(name))
    one_line(error)
    with pytest.raises(UserError, match=r"checkpoint\.resume_file") as error:
        restore.read_content(Path(name), "checkpoint.resume_file")
    one_line(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "folder", "folder.pth", "objects.pth", "NOT_AN_ENUM"])
def test_every_encoder_names_its_key(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name[:90]).mkdir() if name.startswith("folder") else None
    python_objects(tmp_path / "objects.pth")
    for encoder, options in (("resnet18", {}), ("timm", {"model": "resnet18"}), ("bert", {"hidden_size": 8})):
        if encoder == "bert" and name == "NOT_AN_ENUM":
            continue  # it would be asked for on the hub
        arguments = {"vocab_size": 30} if encoder == "bert" else {}
        with pytest.raises(UserError, match=r"weights: ") as error:
            registry.build("encoder", encoder, {"weights": name, **options}, "p", **arguments)
        one_line(error)


def test_a_runs_folder_offers_its_checkpoints(tmp_path):
    _, path = save(tmp_path / "run/checkpoints", 3, best=True)
    for wrong in (tmp_path / "run", tmp_path / "run/checkpoints"):
        with pytest.raises(UserError) as error:
            restore.read_content(wrong, "checkpoint.pretrained")
        assert f"name one of its checkpoints, checkpoint.pretrained={path.parent / 'best'}" in one_line(error)
    for file in ("__0_0.safetensors", "state.json", ".metadata"):
        with pytest.raises(UserError) as error:
            restore.read_content(path / file, "checkpoint.pretrained")
        assert f"is one file of a checkpoint; name its folder, checkpoint.pretrained={path}" in one_line(error)


@pytest.fixture
def sharded(tmp_path):
    """A folder of BERT's weights in several files."""
    model = transformers.BertModel(transformers.BertConfig(**BERT))
    model.save_pretrained(tmp_path / "bert", max_shard_size="3KB")
    assert len(list((tmp_path / "bert").glob("*.safetensors"))) > 1
    return tmp_path / "bert"


def build_bert(path):
    return registry.build("encoder", "bert", {"weights": str(path)}, "p", vocab_size=30)


def test_sharded_weights_are_read(sharded):
    with torch.no_grad():
        theirs = transformers.BertModel.from_pretrained(sharded)
    assert torch.equal(build_bert(sharded).word_embeddings, theirs.embeddings.word_embeddings.weight)


@pytest.mark.parametrize(
    "wrong", ["../outside", "absolute", "bin", "no weights", "missing", "list", "number", "torn", "swapped"]
)
def test_a_sharded_index_that_leads_elsewhere_is_refused(sharded, wrong):
    index = sharded / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    names, shards = list(content["weight_map"]), sorted(set(content["weight_map"].values()))
    shard = content["weight_map"][names[0]]
    (sharded / shard).replace(sharded.parent / "outside.safetensors")
    save_file({"x": torch.zeros(1)}, sharded / "own.safetensors")
    torch.save({names[0]: torch.zeros(1)}, sharded / "own.bin")
    (sharded / "text.safetensors").write_text("no weights")
    target = {
        "../outside": "../outside.safetensors",
        "absolute": str(sharded.parent / "outside.safetensors"),
        "bin": "own.bin",
        "no weights": "text.safetensors",
        "missing": shard,
        "number": 3,
        "swapped": "own.safetensors",
    }.get(wrong, shard)
    content["weight_map"] = {name: target if old == shard else old for name, old in content["weight_map"].items()}
    if wrong == "list":
        content["weight_map"] = shards
    index.write_text(json.dumps(content)[: -10 if wrong == "torn" else None])
    with pytest.raises(UserError, match="weights: ") as error:
        build_bert(sharded)
    assert "index.json" in one_line(error) or "safetensors" in one_line(error)
