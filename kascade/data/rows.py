"""Rows in: any data source as NeMo-Gym rows, each with the place it was read from, or the fault of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kascade.data.files import Row, read_source
from kascade.data.joins import Partners
from kascade.data.layouts import LAYOUTS
from kascade.data.shapes import nemo_gym_rows
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.recipe.parts import DataSource

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
            yield place, field_fault(place, error, "see docs/data.md for the shapes of rows")
        else:
            for row in rows:
                yield place, row


def field_fault(place: str, error: ValueError, remedy: str) -> Fault:
    """A fault from "field: what is wrong", as environments raise it."""
    name, colon, what = str(error).partition(": ")
    if colon and name and " " not in name:
        return Fault(f"{place} {name}", what, remedy=remedy)
    return Fault(place, str(error), remedy=remedy)


@dataclass(slots=True)
class BadRows:
    """What is done with bad rows: collected; skipped up to a limit where the recipe allows that."""

    source: DataSource
    faults: list[Fault] = field(default_factory=list)

    def raise_if_too_many(self) -> None:
        """Raises UserError with every fault, unless they are few enough to skip."""
        if not self.faults:
            return
        if self.source.on_bad_row == "stop":
            raise UserError(self.faults)
        if len(self.faults) > self.source.max_bad_rows:
            what = f"{len(self.faults)} rows are at fault, max_bad_rows is {self.source.max_bad_rows}"
            limit = Fault(str(self.source.path), what, remedy="mend the rows below, or raise max_bad_rows")
            raise UserError([limit, *self.faults])
