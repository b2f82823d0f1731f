"""Rows in: any data source as NeMo-Gym rows, each with the place it was read from, or the fault of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kascade.data.faults import field_fault
from kascade.data.files import read_source
from kascade.data.joins import Partners
from kascade.data.layouts import LAYOUTS
from kascade.data.shapes import nemo_gym_rows
from kascade.data.tables import Row
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.recipe.parts import DataSource

SHAPES = "see docs/data.md for the shapes of rows"
MOST_FAULTS = 10_000  # of one source; whoever sees so many has seen them all
__all__ = ["BadRows", "Row", "field_fault", "read_rows"]


def read_rows(source: DataSource) -> Iterator[tuple[str, Row | Fault]]:
    """(place, row or fault) of each row of a source, in order; the place is `file:line` or `file row N`.

    Raises UserError when there is nothing to read.
    """
    if source.layout not in LAYOUTS and source.layout != "auto":
        allowed = ", ".join(["auto", *sorted(LAYOUTS)])
        raise UserError(Fault("layout", f"{source.layout!r} is not a known layout of rows", allowed))
    partners = Partners.read(source.join) if source.join is not None else None
    for place, found in read_source(source):
        if isinstance(found, Fault):
            yield place, found
            continue
        try:
            rows = nemo_gym_rows(found if partners is None else partners.joined(found), source)
        except ValueError as error:
            yield place, field_fault(place, error, SHAPES)
        except (LookupError, TypeError, AttributeError, RecursionError) as error:  # of a layout, by a row
            what = f"layout {source.layout} cannot read this row ({type(error).__name__}: {error})"
            yield place, Fault(place, what, remedy=SHAPES)
        else:
            for row in rows:
                yield place, row


@dataclass(slots=True)
class BadRows:
    """What is done with bad rows: collected; skipped up to a limit where the recipe allows that."""

    source: DataSource
    faults: list[Fault] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether so many rows have errors that reading on is of no use; said as an error of its own."""
        if len(self.faults) == MOST_FAULTS:
            what = f"{MOST_FAULTS:,} rows have errors; the rest was not read"
            remedy = "fix the kind of error that is shown, then check again"
            self.faults.append(Fault(str(self.source.path), what, remedy=remedy))
        return len(self.faults) > MOST_FAULTS

    def raise_if_too_many(self) -> None:
        """Raises UserError with every fault, unless they are few enough to skip."""
        if not self.faults:
            return
        if self.source.on_bad_row == "stop":
            raise UserError(self.faults)
        if len(self.faults) > self.source.max_bad_rows:
            what = f"{len(self.faults)} rows have errors, max_bad_rows is {self.source.max_bad_rows}"
            limit = Fault(str(self.source.path), what, remedy="fix the rows below, or raise max_bad_rows")
            raise UserError([limit, *self.faults])
