"""A forecast in words and rows, the same for a terminal, for Kubeflow's page and for the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kascade.recipe.forecast import Figures, Forecast, PlannedWork, Span

UNITS = (("h", 1.0), ("min", 1 / 60), ("s", 1 / 3600))  # of hours
SIZES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SHORTENED = 1e4  # numbers from here on
TENTHS, CENTS = 10.0, 0.1  # smaller numbers are shown with tenths; smaller prices with two digits


@dataclass(frozen=True, slots=True)
class PlanTable:
    """A table. notes: what its figures rest on, and what is not known."""

    head: list[str]
    rows: list[list[str]]
    notes: list[str]


def hours(value: float) -> str:
    """ "12.0 s", "34 min", "5.6 h", "1,234 h"."""
    unit, size = next((name, size) for name, size in UNITS if value >= size or name == "s")
    return f"{_number(value / size)} {unit}"


def amount(value: float) -> str:
    """ "820", "2,496", "12.3k", "4.56M", "78.9G"."""
    if value < SHORTENED:
        return f"{value:,.0f}"
    size, letter = next((size, letter) for size, letter in SIZES if value >= size)
    return f"{value / size:.3g}{letter}"


def price(value: float) -> str:
    """Two digits after the point, more of a few cents, none of a hundred."""
    if 0 < value < CENTS:
        return f"{value:.2g}"
    return f"{value:,.2f}" if value < 10 * TENTHS else amount(value)


def forecast_table(found: Forecast) -> PlanTable:
    """A row for each piece of work, then the whole and the worst case: expected (low-high)."""
    columns = _columns(found)
    head = ["stage", "what", *(title for title, _ in columns), "drawn", "learnt"]
    rows = [[row.stage, _what(row), *_cells(row.figures, columns)] for row in found.rows]
    rows.append(["in all", "as expected", *_cells(found.total, columns)])
    names = [*(name for _, name in columns), "tokens_generated", "tokens_trained"]
    rows.append(["at worst", "all recoveries, looks", *(_one(found.worst[name], name) for name in names)])
    return PlanTable(
        head, rows, [*_bases(found.rows), "drawn, learnt: tokens, as expected", *_storage(found)]
    )


def _columns(found: Forecast) -> list[tuple[str, str]]:
    """Title and field of each column that says something."""
    columns = [("wall-clock", "wall_hours"), ("CPU", "cpu_hours")]
    if found.worst["accelerator_hours"] != 0:
        columns.append(("accelerators", "accelerator_hours"))
    if found.currency is not None:
        columns.append((found.currency, "money"))
    return columns


def _cells(figures: Figures, columns: Sequence[tuple[str, str]]) -> list[str]:
    spans = [span_text(getattr(figures, name), name) for _, name in columns]
    tokens = (figures.tokens_generated, figures.tokens_trained)
    return [*spans, *(amount(one.expected) if one.expected else "" for one in tokens)]


def span_text(span: Span | None, field: str) -> str:
    """ "5.6 h (2.1-9.9)", all three in the unit of the first; "?" where nothing says."""
    if span is None:
        return "?"
    if field == "money":
        between = f" ({price(span.low)}-{price(span.high)})" if span.high else ""
        return f"{price(span.expected)}{between}"
    if span.high == 0:
        return ""
    unit, size = next((name, size) for name, size in UNITS if span.expected >= size or name == "s")
    low, expected, high = (_number(one / size) for one in (span.low, span.expected, span.high))
    return f"{expected} {unit} ({low}-{high})"


def _number(value: float) -> str:
    return f"{value:.1f}" if value < TENTHS else amount(value)


def _one(value: float | None, field: str) -> str:
    if value is None:
        return "?"
    if field == "money":
        return price(value)
    if not value:
        return ""
    return amount(value) if field.startswith("tokens") else hours(value)


def _what(row: PlannedWork) -> str:
    """Of a recovery: how many of such are expected, and how many there are at most."""
    return (
        row.part if row.part != "recovery" else f"one recovery ({row.rounds:.1f} expected, max {row.times})"
    )


def _bases(rows: Iterable[PlannedWork]) -> list[str]:
    """Each basis once, with the rows that rest on it."""
    found: dict[str, list[str]] = {}
    for row in rows:
        dated = f"{row.basis}, {row.date}" if row.date else row.basis
        found.setdefault(dated, []).append(f"{row.stage} {row.part}")
    whole = len(found) == 1
    return [f"{'all' if whole else some(names)}: {basis}" for basis, names in found.items()]


def some(names: Sequence[str]) -> str:
    """ "a, b, c and 4 more"."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def size(gigabytes: float) -> str:
    """ "1,234.56 GB", or "0.4 MB" of a small model."""
    return f"{gigabytes:,.2f} GB" if gigabytes >= 0.1 else f"{1000 * gigabytes:.1f} MB"


def _storage(found: Forecast) -> list[str]:
    need = found.storage
    if need is None:
        return ["storage: not counted, because the model's shape is not known here"]
    return [
        f"storage: {size(need.kept_gb)} of checkpoints in the end, {size(need.worst_gb)} with every "
        f"recovery, {size(need.peak_gb)} while a stage trains"
    ]
