"""Fields of a row that stand in another file: joined by a field that both have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kascade.data.files import read_rows_of
from kascade.data.shapes import column_of
from kascade.data.tables import Row
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.recipe.parts import Join


@dataclass(frozen=True, slots=True)
class Partners:
    """Rows of the joined file by the text of their shared field."""

    join: Join
    rows: Mapping[str, Row]

    @classmethod
    def read(cls, join: Join) -> Partners:
        """Raises UserError with every row that lacks the field, or shares it with another."""
        rows: dict[str, Row] = {}
        faults = []
        for place, found in read_rows_of(join.path):
            if isinstance(found, Fault):
                faults.append(found)
            elif join.on not in found:
                there = ", ".join(map(str, found))
                faults.append(
                    Fault(f"{place} {join.on}", "is missing", there, "name the shared field: join.on")
                )
            elif (key := str(found[join.on])) in rows:
                faults.append(Fault(f"{place} {join.on}", f"{key!r} stands there twice", "each value once"))
            else:
                rows[key] = found
        if faults:
            raise UserError(faults)
        return cls(join, rows)

    def joined(self, row: Row) -> Row:
        """The row with its partner's fields; its own stay. Raises ValueError ("field: what is wrong")."""
        shared = _shared(row, self.join.on)
        if shared is None:
            raise ValueError(f"{self.join.on}: is missing; rows are joined by it (join.on)")
        partner = self.rows.get(str(shared))
        if partner is None:
            if self.join.required:
                raise ValueError(f"{self.join.on}: {shared!r} is not in {self.join.path}")
            return row
        try:
            taken = {field: column_of(partner, column) for field, column in self.join.columns.items()}
        except ValueError as error:
            raise ValueError(f"join.columns.{error} in {self.join.path}") from None
        return {**row, **taken} if taken else {**partner, **row}


def _shared(row: Row, field: str) -> Any:
    """The field by which a row is joined: its own, or that of a NeMo-Gym row's metadata."""
    if field in row:
        return row[field]
    params = row.get("responses_create_params")
    metadata = params.get("metadata") if isinstance(params, Mapping) else None
    return metadata.get(field) if isinstance(metadata, Mapping) else None
