"""Rows of tables: CSV and TSV, Parquet, Arrow. A column, a cell or a null never gets lost or guessed."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from kascade.errors import Fault

Row = dict[str, Any]
Found = tuple[str, Row | Fault]
LONGEST_CELL = 16 * 2**20  # characters; csv's own limit of 131,072 is too short for long contexts
SEPARATORS = (",", ";", "\t", "|")
BATCH = 256  # Parquet rows that are held as values at once


def read_table(file: BinaryIO, uri: str, delimiter: str) -> Iterator[Found]:
    """A table whose first line names its columns; places count lines, which quoted cells may span."""
    csv.field_size_limit(LONGEST_CELL)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    first = text.readline()
    lines = itertools.chain([first], text)
    reader = csv.reader(lines, delimiter=separator(first, delimiter), strict=True)
    line, num_rows = 1, 0
    try:
        columns = [name.strip() for name in next(reader, [])]
        if faults := _header_faults(columns, f"{uri}:1"):
            yield from ((f"{uri}:1", fault) for fault in faults)
            return
        line = reader.line_num + 1
        for cells in reader:
            place, line = f"{uri}:{line}", reader.line_num + 1
            if cells:
                num_rows += 1
                yield place, _cells(place, columns, cells)
    except csv.Error as error:  # nothing after it can be trusted
        place = f"{uri}:{line}"
        allowed, remedy = (
            'UTF-8, cells quoted with "',
            "fix the quotes of this cell; nothing after it was read",
        )
        yield place, Fault(place, f"cannot be read as a table: {error}", allowed, remedy)
    if columns_only := not num_rows and line > 1:
        assert columns_only
        what = f"holds one line, which was read as names of columns: {', '.join(columns)[:200]}"
        yield (
            uri,
            Fault(uri, what, "a first line with the names, then rows", "put the names of columns first"),
        )


def separator(header: str, usual: str) -> str:
    """What separates the names in a first line: the usual sign, or another where that one is not there."""
    if usual in header:
        return usual
    counts = {sign: header.count(sign) for sign in SEPARATORS}
    most = max(counts, key=lambda sign: counts[sign])
    return most if counts[most] else usual


def _header_faults(columns: list[str], place: str) -> list[Fault]:
    """What would lose cells: two columns of one name, or one without."""
    remedy = "rename or remove one of them"
    faults = [
        Fault(f"{place} {name}", f"names {count} columns, and one would be lost", "each name once", remedy)
        for name, count in Counter(columns).items()
        if count > 1 and name
    ]
    if "" in columns:
        what = f"column {columns.index('') + 1} of {len(columns)} has no name"
        faults.append(Fault(place, what, "a name for each column", "name it in the first line"))
    return faults


def _cells(place: str, columns: list[str], cells: list[str]) -> Row | Fault:
    if len(cells) != len(columns):
        what = f"has {len(cells)} cells, the header names {len(columns)} columns"
        return Fault(place, what, remedy="quote cells that hold separators or line breaks")
    return dict(zip(columns, cells, strict=True))


def read_parquet(file: BinaryIO, uri: str) -> Iterator[Found]:
    """The rows of a Parquet file, batch by batch."""
    import pyarrow as arrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        names = table.schema_arrow.names
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            what = f"{twice[0]!r} names two columns, of which one would be lost"
            yield uri, Fault(f"{uri} {twice[0]}", what, "each name once", "rename or remove one of them")
            return
        batches = table.iter_batches(batch_size=BATCH)
        rows = (row for batch in batches for row in batch.to_pylist(maps_as_pydicts="strict"))
        for number, row in enumerate(rows, start=1):
            yield f"{uri} row {number}", present(row)
    except (arrow.ArrowException, OSError, ValueError, KeyError) as error:
        what = f"is not a readable Parquet file: {' '.join(str(error).split())[:200]}"
        yield uri, Fault(uri, what, remedy="download or write it again")


def present(row: Mapping[str, Any]) -> Row:
    """A row of typed columns without what is not there.

    Arrow gives every object the fields of all rows, those that a row has not as null; and a missing number is
    a NaN to many writers. So nulls within objects are left out, and a cell that is NaN is null.
    """
    return {
        name: None if isinstance(cell, float) and math.isnan(cell) else _without_nulls(cell)
        for name, cell in row.items()
    }


def _without_nulls(value: Any) -> Any:
    """A value of a typed column without nulls in objects, and with bytes as the text that they are."""
    if isinstance(value, bytes):  # what other tools write text as; else it stays what it is, and is refused
        return _decoded(value)
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_nulls(inner) for inner in value]
    return value


def _decoded(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value
