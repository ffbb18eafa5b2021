"""Pickles of arrays, as Python 2 and 3 write them; and hostile ones, of which nothing is executed."""

import os
import pickle
import resource
import struct
from collections import OrderedDict

import numpy as np
import pytest

from pixelbert_plugin.checkpoint import array_pickle


def python2_pickle(arrays: dict[str, np.ndarray]) -> bytes:
    """As Python 2 wrote a dict of arrays (protocol 2): texts and the arrays' bytes are its str, opcodes U and T."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    made = b"\x80\x02}("
    for name, array in arrays.items():
        kind = array.dtype.str
        made += text(name) + b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text("b") + b"tR"
        made += b"(K\x01(" + b"".join(b"J" + struct.pack("<i", size) for size in array.shape) + b"t"
        made += b"cnumpy\ndtype\n(" + text(kind[1:]) + b"K\x00K\x01tR"
        made += b"(K\x03" + text(kind[0]) + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        made += b"\x89T" + struct.pack("<i", array.nbytes) + array.tobytes() + b"tb"
    return made + b"u."


FOUR = python2_pickle({"a": np.zeros(4, np.float32)})
LIMITS = resource.getrlimit(resource.RLIMIT_AS)
ARRAYS = {
    "weight": np.random.default_rng(0).normal(size=(3, 2, 1, 5)).astype(np.float32),
    "big_endian": np.arange(6, dtype=">f8").reshape(2, 3),
    "half": np.ones((1, 4), np.float16),
    "counts": np.array([3, 250], np.uint8),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_back_from_every_protocol(tmp_path, protocol):
    fortran = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    content = {"model": OrderedDict({**ARRAYS, "fortran": fortran, "scalar": np.float32(2.5)}), "__author__": "me", "rest": [1]}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = array_pickle.read(tmp_path / "a.pkl")
    assert found["__author__"] == "me" and found["rest"] == [1] and found["model"]["scalar"] == 2.5
    for name, array in {**ARRAYS, "fortran": fortran}.items():
        own = found["model"][name]
        assert own.shape == array.shape and own.dtype == array.dtype.newbyteorder("=") and np.array_equal(own, array), name


def test_arrays_come_back_from_python_2(tmp_path):
    (tmp_path / "a.pkl").write_bytes(python2_pickle({name: ARRAYS[name] for name in ("weight", "big_endian", "counts")}))
    found = array_pickle.read(tmp_path / "a.pkl")
    assert all(np.array_equal(found[name], ARRAYS[name]) for name in ("weight", "big_endian", "counts"))


class Calls:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize(
    "hostile",
    [
        lambda mark: Calls(os.system, f"touch {mark}"),
        lambda mark: Calls(exec, f"open({mark!r}, 'w')"),
        lambda mark: Calls(getattr, "x", "join"),
        lambda mark: Calls(np.load, str(mark)),
        lambda mark: Calls(np.fromfile, str(mark)),
        lambda mark: np.array([Calls(os.mkdir, str(mark))], dtype=object),
        lambda mark: np.dtype([("a", "f4"), ("b", "O")]),
        lambda mark: {Calls(os.mkdir, str(mark)): 1},
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_nothing_else_is_loaded_or_called(tmp_path, hostile, protocol):
    mark = tmp_path / "mark"
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"x": hostile(str(mark)), "w": np.zeros(2, np.float32)}, protocol=protocol))
    with pytest.raises(ValueError, match=r"^(names|is no whole pickle|holds|an array|refers)"):
        array_pickle.read(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip",
        pickle.dumps(ARRAYS)[:-40],
        FOUR.replace(b"J\x04\x00\x00\x00", b"J\x05\x00\x00\x00"),  # more than its bytes
        FOUR.replace(b"J\x04\x00\x00\x00", b"J\xff\xff\xff\xff"),  # less than none
        FOUR.replace(b"U\x02f4", b"U\x02O8"),  # pointers
        FOUR.replace(b"U\x02f4", b"U\x02V4"),
        b"\x80\x02" + b"(" * 3 + b"I1\nPnumber\n.",  # an object outside the file
    ],
)
def test_damaged_and_forged_files_are_told_in_a_line(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"^\S.{5,300}$"):
        array_pickle.read(tmp_path / "a.pkl")


def test_flipped_bits_give_arrays_or_an_error(tmp_path):
    whole, draw = pickle.dumps({"a": ARRAYS["weight"], "b": [1, "x"]}, protocol=2), np.random.default_rng(3)
    for _ in range(400):
        damaged = bytearray(whole)
        for place in draw.integers(len(damaged), size=2):
            damaged[place] ^= 1 << int(draw.integers(8))
        (tmp_path / "a.pkl").write_bytes(bytes(damaged))
        try:
            found = array_pickle.read(tmp_path / "a.pkl")
        except ValueError:
            continue
        assert found is None or isinstance(found, dict | list | str | bytes | int | float | np.ndarray | np.generic)


def test_a_number_in_a_file_takes_no_memory(tmp_path):
    """The C reader's table of 2³¹ places would take 32 GB, and an array's content that is a number so many bytes."""
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02Nr\xff\xff\xff\x7f.")
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, LIMITS[1]))
    try:
        assert array_pickle.read(tmp_path / "a.pkl") is None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, LIMITS)
    with pytest.raises(ValueError, match="content is int"):
        array_pickle._Kind("f4").array(2**40, (2**38,))
