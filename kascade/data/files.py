"""Rows from files of any kind: JSONL, JSON, CSV, TSV, Parquet, folders of them, Hugging Face datasets.

A reader yields (place, row or fault): the place is `file:line` where a file has lines, else `file row N`.
"""

from __future__ import annotations

import gzip
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from kascade.data.disguises import LONGEST_START, another_kind
from kascade.data.faults import field_fault, shown
from kascade.data.hub import HUB, hub_rows, saved_rows
from kascade.data.json_text import LONGEST_ROW, JsonError, decode, items, parse
from kascade.data.tables import Found, Row, read_parquet, read_table
from kascade.errors import Fault, KascadeError, UserError
from kascade.storage.address import is_remote, join_uri, parse_uri
from kascade.storage.files import is_folder
from kascade.storage.uris import open_copy, open_store

if TYPE_CHECKING:
    from kascade.recipe.parts import DataSource

Format = Literal["jsonl", "json", "csv", "tsv", "parquet"]

CHECK = "check `path` of the data source"
ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
ONE_OBJECT = "one JSON object a line"
MOST_BLANK = 1_000_000  # empty lines one after the other: nothing comes after so many
SPREAD = {  # what a first line says that is only the beginning of a value
    b"[": "name it .json, or `format: json` in the data source",
    b"{": "write each object on one line",
}


def read_source(source: DataSource) -> Iterator[Found]:
    """Every row of a data source, in order. Raises UserError when it cannot be opened at all."""
    assert source.path is not None
    yield from read_rows_of(source.path, source.format, split=source.split, subset=source.subset)


def read_rows_of(
    path: str,
    format: Format | Literal["auto"] = "auto",
    *,
    split: str | None = None,
    subset: str | None = None,
) -> Iterator[Found]:
    """Every row at an address: a file, a folder, a saved dataset, one of the hub. Raises UserError."""
    if path.startswith(HUB):
        yield from hub_rows(path.removeprefix(HUB), subset, split or "train")
        return
    folder = local_path(path)
    if is_remote(path) and format == "auto" and format_of(path) is None:
        for name in _of_split(_stored_files(path), split, path):
            yield from read_file(join_uri(path, name), format)
    elif folder is None or not is_folder(folder):
        _refuse_split(path, split)
        yield from read_file(path, format)
    elif (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        yield from saved_rows(folder, split)
    else:
        names = [one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()]
        for name in _of_split(sorted(filter(format_of, names)), split, str(folder)):
            yield from read_file(str(folder / name), format)


def _refuse_split(path: str, split: str | None) -> None:
    """Raises UserError where a split is named of what has none: all rows would be read."""
    if split is not None:
        what = f"is one file, and the data source names its split {split!r}"
        remedy = "leave `split` out, or name a folder with a file for each split"
        raise UserError(Fault(shown(path), what, remedy=remedy))


def read_file(uri: str, format: Format | Literal["auto"] = "auto") -> Iterator[Found]:
    """Every row of one file; its ending tells the format unless one is named."""
    kind = format_of(uri) if format == "auto" else format
    if (path := local_path(uri)) is not None and (problem := _not_there(path)):
        raise UserError(Fault(shown(uri), problem, remedy=CHECK))
    if kind is None:
        what = f"cannot tell the format from the name {uri.rsplit('/', 1)[-1]!r}"
        raise UserError(Fault(uri, what, ", ".join(ENDINGS), "name it: `format` of the data source"))
    with _open(uri) as opened:
        yield from read_opened(opened, uri, kind)


def read_opened(opened: BinaryIO, uri: str, kind: Format) -> Iterator[Found]:
    """Every row of an open file. What its bytes make a decoder raise is an error of the file."""
    try:
        if uri.endswith(".gz"):
            if fault := _seen(opened, uri, kind, packed=True):
                yield uri, fault
                return
            with gzip.open(opened) as unpacked:
                yield from _read(cast(BinaryIO, unpacked), uri, kind)
        else:
            yield from _read(opened, uri, kind)
    except UnicodeError as error:
        yield uri, Fault(uri, f"is not UTF-8 text: {error}", "UTF-8", "save it as UTF-8")
    except (EOFError, OSError, zlib.error) as error:
        what = f"is cut off or damaged: {' '.join(str(error).split()) or type(error).__name__}"
        yield uri, Fault(uri, what, remedy="download or write it again")


def _read(file: BinaryIO, uri: str, kind: Format) -> Iterator[Found]:
    if fault := _seen(file, uri, kind):
        yield uri, fault
    else:
        yield from READERS[kind](file, uri)


def _seen(file: BinaryIO, uri: str, kind: Format, *, packed: bool = False) -> Fault | None:
    start = file.read(LONGEST_START)
    file.seek(0)
    return another_kind(start, uri, text=kind != "parquet", packed=packed)


def _not_there(path: Path) -> str | None:
    """Why a path names nothing that can be read."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: it holds a NUL character
        why = error.strerror if isinstance(error, OSError) else "no path can hold a NUL character"
        return "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {why}"
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return "is no regular file: rows are read more than once, which no pipe, socket or device allows"


def local_path(uri: str) -> Path | None:
    """The path that an address names; None for one that is elsewhere (a bucket, the hub)."""
    if uri.startswith(HUB):
        return None
    try:
        address = parse_uri(uri)
    except KascadeError as error:
        raise UserError(Fault(uri, f"cannot be read: {error}", remedy=CHECK)) from error
    return address if isinstance(address, Path) else None


def _open(uri: str) -> BinaryIO:
    try:
        return open_copy(uri)
    except OSError as error:
        remedy = f"{CHECK}, and who may read it"
        raise UserError(Fault(uri, f"cannot be read: {error.strerror or error}", remedy=remedy)) from error
    except KascadeError as error:
        raise UserError(Fault(uri, f"cannot be read: {error}", remedy=CHECK)) from error


def format_of(uri: str) -> Format | None:
    return ENDINGS.get(Path(uri.removesuffix(".gz")).suffix.lower())


def _jsonl(file: BinaryIO, uri: str) -> Iterator[Found]:
    number = blank = 0
    while line := file.readline(LONGEST_ROW + 2):
        number += 1
        if not line.strip():
            blank += 1
            if blank > MOST_BLANK:
                yield f"{uri}:{number}", _blank(uri, number)
                return
            continue
        blank, place = 0, f"{uri}:{number}"
        if number == 1 and line.strip() in SPREAD:
            remedy = SPREAD[line.strip()]
            yield place, Fault(uri, "holds one JSON value over several lines", ONE_OBJECT, remedy)
            return
        yield place, _object(line, place)
        while not line.endswith(b"\n") and len(line) > LONGEST_ROW:  # the rest of a row that is too long
            line = file.readline(LONGEST_ROW + 2)


def _blank(uri: str, line: int) -> Fault:
    what = f"more than {MOST_BLANK:,} empty lines; nothing after them was read"
    return Fault(f"{uri}:{line}", what, remedy="remove the empty lines")


def _object(text: bytes | str, place: str) -> Row | Fault:
    try:
        row = parse(text)
    except JsonError as error:
        return field_fault(place, error, "fix or delete this row", ONE_OBJECT)
    if isinstance(row, dict):
        return row
    return Fault(place, f"is a {type(row).__name__}, not an object", ONE_OBJECT, "fix or delete this row")


def _json(file: BinaryIO, uri: str) -> Iterator[Found]:
    """A list of objects, read one by one; or one object a line under the name .json, as BFCL's files are."""
    start = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
    file.seek(0)
    if start.startswith(b"{"):
        yield from _lines_or_one_object(file, uri)
        return
    number = 0
    try:
        for item in items(decode(file.read())):
            number += 1
            place = f"{uri} row {number}"
            yield place, _object(item, place)
    except JsonError as error:
        place = f"{uri} row {number + 1}" if number else uri
        remedy = "fix the file here; nothing after it was read. One object a line belongs in a .jsonl"
        yield place, field_fault(place, error, remedy, "a list of objects")


def _lines_or_one_object(file: BinaryIO, uri: str) -> Iterator[Found]:
    found = _jsonl(file, uri)
    first = next(found)
    if isinstance(first[1], Fault):
        yield (
            uri,
            Fault(uri, f"holds no list: {first[1].what}", "a list of objects", "for one a line: .jsonl"),
        )
        return
    yield first
    yield from found


READERS: dict[Format, Callable[[BinaryIO, str], Iterator[Found]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": lambda file, uri: read_table(file, uri, ","),
    "tsv": lambda file, uri: read_table(file, uri, "\t"),
    "parquet": read_parquet,
}


def _stored_files(uri: str) -> list[str]:
    """Names of the data files under an address in a bucket."""
    try:
        return [entry.name for entry in open_store(uri).entries() if format_of(entry.name)]
    except KascadeError as error:
        raise UserError(Fault(uri, f"cannot be read: {error}", remedy=CHECK)) from error


def _of_split(names: Sequence[str], split: str | None, folder: str) -> Sequence[str]:
    """The data files of a folder, those of one split when their names distinguish splits."""
    if split is not None:
        beginnings = (f"{split}-", f"{split}.", f"{split}_")
        parts = {name: name.split("/") for name in names}
        named = [n for n in names if split in parts[n][:-1] or parts[n][-1].startswith(beginnings)]
        if not named:
            what = f"holds no data file of split {split!r}"
            remedy = "name another `split`, or leave it out to read every file"
            raise UserError(Fault(folder, what, ", ".join(names[:8]) or None, remedy))
        return named
    if not names:
        remedy = "write rows to such a file in it, or name another path"
        raise UserError(Fault(folder, "holds no data files", ", ".join(f"*{end}" for end in ENDINGS), remedy))
    return names
