"""The table of docs/benchmarks.md, made from results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

BEGIN, END = "<!-- benchmarks: written by `python -m benchmarks` -->\n", "<!-- end of benchmarks -->\n"


def with_table(page: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The page with what is between the two marks replaced. Raises ValueError where they are missing."""
    if BEGIN not in page or END not in page:
        raise ValueError(f"docs/benchmarks.md lacks the lines {BEGIN!r} and {END!r}")
    before, rest = page.split(BEGIN)
    return before + BEGIN + table_of(rows) + END + rest.split(END)[1]


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown; only rows with a peer."""
    lines = ["| | ours | peer | ratio | unit | peer is |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['name']} | {row['ours']:,.0f} | {row['peer']:,.0f} | {row['ratio']:.2f} | {row['unit']} "
        f"| {row['peer_name']} |"
        for row in rows
        if row["peer"] is not None
    ]
    return "\n".join(lines) + "\n"
