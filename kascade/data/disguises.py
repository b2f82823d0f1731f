"""What the first bytes of a file tell of it, where that is not what its name promises."""

from __future__ import annotations

from kascade.errors import Fault

LONGEST_START = 64  # bytes that are looked at
LFS = b"version https://git-lfs"
PACKED = {  # how other kinds of files begin, what they are, and what to do with one
    b"\x1f\x8b": ("gzip data", "end its name in .gz, or unpack it"),
    b"PK\x03\x04": ("a zip archive (as spreadsheets are, too)", "unpack it, or save the table as CSV"),
    b"BZh": ("bzip2 data", "unpack it"),
    b"\xfd7zXZ": ("xz data", "unpack it"),
    b"\x28\xb5\x2f\xfd": ("Zstandard data", "unpack it"),
    b"ARROW1": ("an Arrow file", "save it as Parquet, or with save_to_disk"),
    b"PAR1": ("a Parquet file", "end its name in .parquet, or set `format: parquet`"),
}
MARKS = {  # byte order marks; the longer ones first
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


def another_kind(start: bytes, uri: str, *, text: bool, packed: bool = False) -> Fault | None:
    """The error of a file that begins so; None where nothing speaks against its name.

    text: whether lines of UTF-8 are expected. packed: whether gzip is.
    """
    if start.startswith(LFS):
        return Fault(
            uri, "is a pointer of Git LFS, and not the file itself", remedy="fetch it with `git lfs pull`"
        )
    if not text or packed:
        return None
    for beginning, (what, remedy) in PACKED.items():
        if start.startswith(beginning):
            return Fault(uri, f"is {what}, not text", "UTF-8", remedy)
    for mark, encoding in MARKS.items():
        if start.startswith(mark):
            return Fault(uri, f"is {encoding}, not UTF-8", "UTF-8", "save it as UTF-8")
    return None
