"""Tensors in a folder: what others read of it, what a former version wrote, a full disk."""

import pickle
import resource
import signal

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

from pixelbert_plugin.checkpoint import tensor_index, tensor_store

KINDS = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    shared = torch.randn(6, 4)
    return {
        **{f"kind/{kind}": (torch.randn(3, 5) * 9).to(kind) for kind in KINDS},
        "step": torch.tensor(7.0),
        "empty": torch.zeros(0, 3),
        "word_embeddings": shared,
        "tied": shared,
        "rows": shared[2:4],
        "turned": shared.t(),
    }


def equal(found, tensors):
    return found.keys() == tensors.keys() and all(
        found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in tensors.items()
    )


def test_what_is_written_is_read_and_is_a_safetensors_file(tensors, tmp_path):
    tensor_store.write(tensors, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".metadata", "__0_0.safetensors"]
    assert equal(tensor_store.read_all(tmp_path, ""), tensors)
    assert equal(load_file(tmp_path / "__0_0.safetensors"), tensors)
    kinds = tensor_store.read_all(tmp_path, "kind/")
    assert kinds.keys() == {str(kind) for kind in KINDS}


def test_the_index_gives_each_tensors_place_in_the_file(tensors, tmp_path):
    tensor_store.write(tensors, tmp_path)
    content = (tmp_path / "__0_0.safetensors").read_bytes()
    for index, place in tensor_index.read_index(tmp_path).storage_data.items():
        raw = tensors[index.fqn].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        assert content[place.offset : place.offset + place.length] == raw


def test_what_dcps_own_writer_left_is_read(tensors, tmp_path):
    """As versions before wrote it."""
    dcp.save(tensors, checkpoint_id=tmp_path, no_dist=True)
    assert list(tmp_path.glob("*.distcp"))
    assert equal(tensor_store.read_all(tmp_path, ""), tensors)


def test_a_disk_that_is_full_is_said_in_the_systems_words(tensors, tmp_path):
    tensors["large"] = torch.zeros(1 << 20)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, former[1][1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            tensor_store.write(tensors, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former[1])
        signal.signal(signal.SIGXFSZ, former[0])


def test_a_file_whose_tensor_has_another_shape_than_the_index_says_is_refused(tensors, tmp_path):
    """The header is another's; the index, which reading begins with, was checked against lengths alone."""
    tensor_store.write(tensors, tmp_path)
    index = tensor_index.read_index(tmp_path)
    file = tmp_path / "__0_0.safetensors"
    content = file.read_bytes()
    assert content.count(b'"shape":[6,4]') == 2
    file.write_bytes(content.replace(b'"shape":[6,4]', b'"shape":[4,6]'))
    (tmp_path / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises((OSError, tensor_index.HostileFileError), match="another shape than its index"):
        tensor_store.read_all(tmp_path, "word")
