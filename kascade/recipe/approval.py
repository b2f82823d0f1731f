"""Where a run waits for a person's word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field

from kascade.errors import Fault
from kascade.recipe.checks import Problem, unknown_name
from kascade.recipe.parts import Part, formed

PROMOTION = "promotion"
Duration = Annotated[str, formed(r"^[0-9]+(\.[0-9]+)?[mhd]$", "a time such as 90m, 48h or 3d")]
UNITS = {"m": "minutes", "h": "hours", "d": "days"}


class Approval(Part):
    """The run ends where it waits, and holds no pod. `kascade approve` or `reject` decides."""

    before: tuple[str, ...] = Field(
        (), description="what waits: names of stages, and `promotion`; none: nothing waits"
    )
    timeout: Duration | None = Field(
        None, description="how long it waits, such as 90m, 48h or 3d; None: for good"
    )
    on_timeout: Literal["reject", "approve"] = Field("reject", description="what silence means after that")

    @property
    def patience(self) -> timedelta | None:
        """`timeout` as a span of time."""
        if self.timeout is None:
            return None
        return timedelta(**{UNITS[self.timeout[-1]]: float(self.timeout[:-1])})


def approval_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """Names that are neither a stage nor `promotion`."""
    approval, stages = recipe.get("approval"), recipe.get("stages")
    named = approval.get("before") if isinstance(approval, dict) else None
    if not isinstance(named, list):
        return
    parts = stages if isinstance(stages, list) else []
    known = [str(part["name"]) for part in parts if isinstance(part, dict) and "name" in part]
    for index, name in enumerate(named):
        if name not in (*known, PROMOTION):
            path = ("approval", "before", index)
            yield unknown_name(path, str(name), "a stage of this recipe", [*known, PROMOTION])


def decisions(text: str, where: str, faults: list[Fault]) -> dict[str, bool]:
    """What a text of names says, by name: True for approved, False for rejected. where: it was given."""
    found: dict[str, bool] = {}
    for part in re.split(r"[;,\n]", text):
        words = part.split()
        approved = len(words) < 2 or words[0] != "reject"
        names = words if approved else words[1:]
        if len(names) > 1:
            allowed = "names between semicolons, each with `reject` before it where it is refused"
            faults.append(Fault(where, f"{part.strip()!r} is no name", allowed))
        elif names and found.setdefault(names[0], approved) != approved:
            faults.append(Fault(where, f"{names[0]} is both approved and rejected", "one word for each"))
    return found
