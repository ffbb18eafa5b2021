"""What a file is that was saved under another's name: a failed download's web page, a pointer of Git LFS, an archive.

Readers of JSON, vocabularies, tables and weights ask before they tell of a fault that another download would not mend.
"""

from pathlib import Path

LENGTH = 512  # bytes of a file's beginning that are looked at
BINARY = {  # how files begin, and what is to be done
    b"\x1f\x8b": "is compressed by gzip; unpack it with gunzip",
    b"PK\x03\x04": "is a zip archive; unpack it with unzip",
    b"BZh": "is compressed by bzip2; unpack it with bunzip2",
    b"\xfd7zXZ": "is compressed by xz; unpack it with unxz",
    b"7z\xbc\xaf": "is a 7z archive; unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; unpack it with unzstd",
    b"\xff\xfe": "is UTF-16 or UTF-32 text; save it as UTF-8 (iconv -t UTF-8)",
    b"\xfe\xff": "is UTF-16 text; save it as UTF-8 (iconv -t UTF-8)",
    b"\x89HDF": "is an HDF5 file",
    b"\x93NUMPY": "is a NumPy file",
}
LFS = "version https://git-lfs"  # what Git LFS leaves in a file's place begins so
POINTER = "is a pointer of Git LFS, not the file itself; fetch it with 'git lfs pull'"
PAGE = "is a web page, not the file itself; download it again"
ERROR = "is a server's error message (XML), not the file itself; download it again"
TEXT = {LFS.encode(): POINTER, b"<!doctype": PAGE, b"<html": PAGE, b"<head": PAGE, b"<?xml": ERROR, b"<error>": ERROR}


def what_else(path: Path, but: tuple[bytes, ...] = ()) -> str:
    """What a file is by its first bytes, and what to do, to follow its name; "" where they say nothing, or it cannot be read.

    `but`: beginnings that the file asked for may have itself.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            return ""
        with path.open("rb") as file:
            first = file.read(LENGTH)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return ""
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    told = next((told for begins, told in BINARY.items() if first.startswith(begins) and begins not in but), "")
    return told or next((told for begins, told in TEXT.items() if text.startswith(begins)), "")
