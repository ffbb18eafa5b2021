"""Names of Hugging Face's hub where there is no network: one line at once, not half a minute of tries."""

import socket
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from pixelbert_plugin import registry
from pixelbert_plugin.checkpoint import hub
from pixelbert_plugin.errors import UserError


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize(
    "kind, name, options, context",
    [
        ("processor", "bert_tokenizer", {"vocabulary": "nobody/has-this"}, {}),
        ("encoder", "bert", {"weights": "nobody/has-this"}, {"vocab_size": 9, "pad_token_id": 0}),
        ("encoder", "timm", {"model": "convnext_atto", "weights": "pretrained"}, {}),
    ],
)
def test_without_network_a_name_of_the_hub_is_refused_at_once(no_network, kind, name, options, context):
    if name == "timm":
        pytest.importorskip("timm")
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"cannot be reached \(Name or service not known\), and its cache has none"):
        registry.build(kind, name, options, f"{name}.params", **context)
    assert time.monotonic() - begin < 5, "the hub's client tried again and again"
    assert not constants.HF_HUB_OFFLINE, "a setting of the process was left changed"


def test_a_proxy_may_know_the_way(no_network, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://proxy:8080")
    assert hub.why_unreachable() is None


def test_a_vocabulary_that_is_a_file_is_no_name_of_the_hub(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(UserError, match="is a file; name the folder"):
        registry.build("processor", "bert_tokenizer", {"vocabulary": str(tmp_path / "vocab.txt")}, "processors.text.params")


def test_what_can_be_a_repositorys_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hub.is_name("someone/vqa-2.0") and not hub.is_name(Path("someone/vqa"))
    assert not any(map(hub.is_name, ("vqa", "a/b/c", "./vqa", "../vqa", "/vqa", "~/vqa", "a/", "save vqa/x")))
    (tmp_path / "save").mkdir()
    assert not hub.is_name("save/vqa")  # a mistyped name of what lies here


@pytest.mark.parametrize("names", [[], ["a.safetensors", "b.safetensors"]])
def test_a_repository_holds_one_exported_file(tmp_path, monkeypatch, names):
    snapshot = tmp_path / "models--someone--vqa/snapshots/0123abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--someone--vqa/refs").mkdir()
    (tmp_path / "models--someone--vqa/refs/main").write_text("0123abc")
    for name in names:
        (snapshot / name).write_text("")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        hub.exported_file(hub.repository("someone/vqa", "path"), "someone/vqa", "path")
    assert f"path='someone/vqa': the hub's repository holds {len(names)} .safetensors" in str(caught.value)
    assert ", ".join(names) in str(caught.value)
