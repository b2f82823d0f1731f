"""NeMo-Gym rows: JSONL in, dictionaries and tasks out; all faults of a file at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kascade.environments.base import Environment, Task
from kascade.errors import Fault, UserError

Row = dict[str, Any]


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(line number, row) of each non-blank line of a JSONL file.

    Raises UserError at once when the file cannot be opened, and at the end with all bad lines
    (`file:line`), so that a reader who collects faults of its own sees every good row first.
    """
    faults: list[Fault] = []
    try:
        file = path.open("rb")
    except OSError as error:
        remedy = "check `path` of the data source"
        raise UserError(Fault(str(path), f"cannot be read: {error.strerror}", remedy=remedy)) from error
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            parsed = _parse(line, f"{path}:{number}")
            if isinstance(parsed, Fault):
                faults.append(parsed)
            else:
                yield number, parsed
    if faults:
        raise UserError(faults)


def _parse(line: bytes, where: str) -> Row | Fault:
    try:
        row = json.loads(line)  # bytes: json detects the encoding and refuses what is not Unicode
    except (ValueError, RecursionError) as error:
        return Fault(where, f"is not JSON: {error}", allowed="one JSON object a line")
    if not isinstance(row, dict):
        return Fault(where, f"is a {type(row).__name__}, not an object", allowed="one JSON object a line")
    return row


def tasks_from_rows(environment: Environment, path: Path) -> list[Task]:
    """The file's rows as tasks of `environment`, without repeated questions.

    Raises UserError with the faults of all lines, or when the file holds no row.
    """
    tasks: dict[str, Task] = {}
    faults: list[Fault] = []
    try:
        for number, row in read_rows(path):
            try:
                task = environment.from_row(row)
            except ValueError as error:
                remedy = f"see the row format of environment {environment.name!r}"
                faults.append(Fault(f"{path}:{number}", str(error), remedy=remedy))
            else:
                tasks.setdefault(task.id, task)
    except UserError as error:
        faults.extend(error.faults)
    if not tasks and not faults:
        faults.append(Fault(str(path), "holds no rows", allowed="one JSON object a line"))
    if faults:
        raise UserError(faults)
    return list(tasks.values())
