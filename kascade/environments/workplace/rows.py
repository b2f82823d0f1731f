"""What the office's tools have in common: checks, and reading and changing the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from kascade.environments.workplace.tables import Row, Table

EXACT = ("status", "list_name", "board")  # columns whose case matters in a comparison of states


class ToolRefusal(Exception):
    """What a tool says instead of doing what was asked."""


def as_text(name: str, value: Any) -> Any:
    """Arguments are text, but for pages. Raises ValueError."""
    if name in ("page", "page_size"):
        if not isinstance(value, (int, str)):
            raise ValueError(f"{name} must be a whole number")
        return max(1, int(value))
    if isinstance(value, (dict, list)):
        raise ValueError(f"{name} must be text")
    return str(value)


def parse_time(text: str) -> datetime:
    """Raises ValueError for what is no date or time."""
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is no time; the format is YYYY-MM-DD HH:MM:SS") from None


def need(condition: object, otherwise: str) -> None:
    if not condition:
        raise ToolRefusal(otherwise)


def one_of(value: str, allowed: Sequence[str], what: str) -> None:
    need(value in allowed, f"{what}: {', '.join(map(repr, allowed))}")


def find_row(table: Table, key: str, what: str) -> Row:
    need(key in table, f"{what} not found.")
    return table[key]


def field_of(table: Table, key: str, field: str, what: str) -> Row:
    need(key, f"{what} ID not provided.")
    need(field, "Field not provided.")
    row = find_row(table, key, what)
    need(field in row, f"Field not found. Available fields: {', '.join(row)}")
    return {field: row[field]}


def add_row(table: Table, key: str, row: Row) -> str:
    number = f"{int(max(table, default='0')) + 1:08d}"
    table[number] = {key: number, **row}
    return number


def delete_row(table: Table, key: str, what: str) -> str:
    need(key, f"{what} ID not provided.")
    find_row(table, key, what)
    del table[key]
    return f"{what} deleted successfully."


def update_row(table: Table, key: str, field: str, value: str, what: str) -> str:
    row = find_row(table, key, what)
    need(field in row, f"Field not valid. Please choose from: {', '.join(row)}")
    table[key] = {**row, field: value}
    return f"{what} updated successfully."


def check_event(field: str, value: str) -> None:
    if field == "event_start":
        parse_time(value)
    if field == "duration":
        need(value.strip().isdecimal() and int(value) > 0, "Duration must be a positive number of minutes.")


def containing(table: Table, wanted: Mapping[str, str]) -> list[Row]:
    return [
        row for row in table.values() if all(text.lower() in row[c].lower() for c, text in wanted.items())
    ]


def page_of(rows: list[Row], name: str, page: int, size: int) -> Any:
    need(rows, f"No {name} found.")
    pages = -(-len(rows) // size)
    page = min(page, pages)
    pagination = {f"total_{name}": len(rows), "page": page, "page_size": size, "total_pages": pages}
    return {name: rows[(page - 1) * size : page * size], "pagination": pagination}


def compared(row: Row) -> tuple[tuple[str, str], ...]:
    """A row without regard to the order of its columns."""
    return tuple(sorted((c, text if c in EXACT else text.lower()) for c, text in row.items()))
