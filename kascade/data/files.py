"""Rows from files of any kind: JSONL, JSON, CSV, TSV, Parquet, folders of them, Hugging Face datasets.

A reader yields (place, row or fault): the place is `file:line` where a file has lines, else `file row N`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from kascade.errors import Fault, KascadeError, UserError
from kascade.storage.uris import is_remote, join_uri, open_copy, open_store, parse_uri

if TYPE_CHECKING:
    from kascade.recipe.parts import DataSource

Row = dict[str, Any]
Found = tuple[str, Row | Fault]
Format = Literal["jsonl", "json", "csv", "tsv", "parquet"]

HUB = "hf://"
ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
LONGEST_CELL = 2**27  # characters; csv's own limit of 131,072 is too short for long contexts
ONE_OBJECT = "one JSON object a line"


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
        yield from _hub(path.removeprefix(HUB), subset, split or "train")
        return
    folder = local_path(path)
    if is_remote(path) and format == "auto" and format_of(path) is None:
        for name in _of_split(_stored_files(path), split, path):
            yield from read_file(join_uri(path, name), format)
    elif folder is None or not folder.is_dir():
        yield from read_file(path, format)
    elif (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        yield from _saved_dataset(folder, split)
    else:
        names = [one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()]
        for name in _of_split(sorted(filter(format_of, names)), split, str(folder)):
            yield from read_file(str(folder / name), format)


def read_file(uri: str, format: Format | Literal["auto"] = "auto") -> Iterator[Found]:
    """Every row of one file; its ending tells the format unless one is named."""
    kind = format_of(uri) if format == "auto" else format
    if (path := local_path(uri)) is not None and not path.exists():
        raise UserError(Fault(uri, "is not there", remedy="check `path` of the data source"))
    if kind is None:
        what = f"cannot tell the format from the name {uri.rsplit('/', 1)[-1]!r}"
        raise UserError(Fault(uri, what, ", ".join(ENDINGS), "name it: `format` of the data source"))
    with _open(uri) as opened:
        if uri.endswith(".gz"):
            with gzip.open(opened) as unpacked:
                yield from READERS[kind](cast(BinaryIO, unpacked), uri)
        else:
            yield from READERS[kind](opened, uri)


def local_path(uri: str) -> Path | None:
    """The path that an address names; None for one that lies elsewhere (a bucket, the hub)."""
    if uri.startswith(HUB):
        return None
    try:
        address = parse_uri(uri)
    except KascadeError as error:
        raise UserError(Fault(uri, f"cannot be read: {error}")) from error
    return address if isinstance(address, Path) else None


def _open(uri: str) -> BinaryIO:
    try:
        return open_copy(uri)
    except OSError as error:
        remedy = "check `path` of the data source, and who may read it"
        raise UserError(Fault(uri, f"cannot be read: {error.strerror or error}", remedy=remedy)) from error
    except KascadeError as error:
        raise UserError(Fault(uri, f"cannot be read: {error}")) from error


def format_of(uri: str) -> Format | None:
    return ENDINGS.get(Path(uri.removesuffix(".gz")).suffix.lower())


def _jsonl(file: BinaryIO, uri: str) -> Iterator[Found]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            place = f"{uri}:{number}"
            yield place, _object(line, place)


def _object(line: bytes, place: str) -> Row | Fault:
    try:
        row = json.loads(line)  # bytes: json detects the encoding and refuses what is not Unicode
    except (ValueError, RecursionError) as error:
        return Fault(place, f"is not JSON: {error}", ONE_OBJECT, "mend or delete the line")
    return _checked(row, place)


def _checked(row: Any, place: str) -> Row | Fault:
    if isinstance(row, dict):
        return row
    return Fault(place, f"is a {type(row).__name__}, not an object", ONE_OBJECT, "mend or delete the line")


def _json(file: BinaryIO, uri: str) -> Iterator[Found]:
    content = file.read()
    if _begins_with_a_row(content):  # one object a line under the name .json, as BFCL's files are
        yield from _jsonl(io.BytesIO(content), uri)
        return
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError) as error:
        yield uri, Fault(uri, f"is not JSON: {error}", "a list of objects", "for one object a line: .jsonl")
        return
    if not isinstance(rows, list):
        yield uri, Fault(uri, f"holds a {type(rows).__name__}, not a list", "a list of objects")
        return
    for number, row in enumerate(rows, start=1):
        yield (place := f"{uri} row {number}"), _checked(row, place)


def _begins_with_a_row(content: bytes) -> bool:
    first = next((line for line in io.BytesIO(content) if line.strip()), b"")
    return not isinstance(_object(first, ""), Fault)


def _table(file: BinaryIO, uri: str, delimiter: str) -> Iterator[Found]:
    """A table whose first line names its columns; places count lines, which quoted cells may span."""
    csv.field_size_limit(LONGEST_CELL)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    line = 1
    try:
        columns = next(reader, [])
        line = reader.line_num + 1
        for cells in reader:
            place, line = f"{uri}:{line}", reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(columns):
                what = f"has {len(cells)} cells, the header names {len(columns)} columns"
                yield place, Fault(place, what, remedy="quote cells that hold commas or line breaks")
            else:
                yield place, dict(zip(columns, cells, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:  # nothing after it can be trusted
        place = f"{uri}:{line}"
        yield place, Fault(place, f"cannot be read as a table: {error}", 'UTF-8, cells quoted with "')


def _parquet(file: BinaryIO, uri: str) -> Iterator[Found]:
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            yield f"{uri} row {number}", row
    except (arrow.ArrowException, OSError) as error:
        yield uri, Fault(uri, f"is not a readable Parquet file: {error}")


READERS: dict[Format, Callable[[BinaryIO, str], Iterator[Found]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "csv": lambda file, uri: _table(file, uri, ","),
    "tsv": lambda file, uri: _table(file, uri, "\t"),
    "parquet": _parquet,
}


def _stored_files(uri: str) -> list[str]:
    """Names of the data files under an address in a bucket."""
    try:
        return [entry.name for entry in open_store(uri).entries() if format_of(entry.name)]
    except KascadeError as error:
        raise UserError(Fault(uri, f"cannot be read: {error}")) from error


def _of_split(names: Sequence[str], split: str | None, folder: str) -> Sequence[str]:
    """The data files of a folder, those of one split when their names tell splits apart."""
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
        raise UserError(Fault(folder, "holds no data files", ", ".join(f"*{end}" for end in ENDINGS)))
    return names


def _datasets() -> Any:
    """The datasets library; it is an extra, since most users' rows are plain files."""
    try:
        import datasets
    except ImportError as error:
        remedy = "pip install datasets, or save the rows as JSONL or Parquet"
        raise UserError(Fault("data source", "needs the datasets library", remedy=remedy)) from error
    return datasets


def _saved_dataset(folder: Path, split: str | None) -> Iterator[Found]:
    """What `save_to_disk` wrote: one dataset, or a dictionary of splits."""
    found = _datasets().load_from_disk(str(folder))
    if hasattr(found, "keys"):
        wanted = split or ("train" if "train" in found else None)
        if wanted not in found:
            what = f"has no split {wanted!r}" if wanted else "has several splits"
            raise UserError(Fault(str(folder), what, ", ".join(found), "name one: `split`"))
        found = found[wanted]
    for number, row in enumerate(found, start=1):
        yield f"{folder} row {number}", dict(row)


def _hub(name: str, subset: str | None, split: str) -> Iterator[Found]:
    """A dataset of the Hugging Face hub, OWNER/NAME or OWNER/NAME@REVISION, from its cache when offline."""
    repository, _, revision = name.partition("@")
    try:
        found = _datasets().load_dataset(repository, subset, split=split, revision=revision or None)
    except (OSError, ValueError, RuntimeError) as error:  # unknown, private, offline, no such split
        what = f"cannot be loaded: {' '.join(str(error).split())[:300]}"
        remedy = "check name, `subset`, `split` and access; offline: save it to a folder and name that"
        raise UserError(Fault(f"{HUB}{name}", what, "hf://OWNER/NAME", remedy)) from error
    for number, row in enumerate(found, start=1):
        yield f"{HUB}{name} row {number}", dict(row)
