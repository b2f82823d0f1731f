"""What a run may cost, and what an hour costs: a gate before every stage, recovery and the end check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, PositiveFloat

from kascade.recipe.checks import Problem
from kascade.recipe.parts import Part, formed


class Budget(Part):
    """What does not fit is not begun. The run ends, and a larger budget continues it."""

    accelerator_hours: PositiveFloat | None = Field(
        None, description="hours of one accelerator (accelerators x time); None: no limit"
    )
    cpu_hours: PositiveFloat | None = Field(
        None, description="hours of one CPU core, as used; None: no limit"
    )
    money: PositiveFloat | None = Field(None, description="in the currency of `prices`; None: no limit")

    def limits(self) -> dict[str, float]:
        """The limits that are given, by name."""
        found = self.model_dump()
        return {name: value for name, value in found.items() if value is not None}


Currency = Annotated[str, formed(r"^[A-Z]{3}$", "three capital letters such as EUR")]


class Prices(Part):
    """What the plan and a budget of money count with."""

    accelerator_hour: float | None = Field(
        None, ge=0, description="price of one accelerator for an hour; None: it costs nothing here"
    )
    cpu_hour: float | None = Field(
        None, ge=0, description="price of one CPU core for an hour; None: it costs nothing here"
    )
    currency: Currency = Field("USD", description="what the prices are in")

    @property
    def known(self) -> bool:
        return self.accelerator_hour is not None or self.cpu_hour is not None

    def money(self, accelerator_hours: float, cpu_hours: float) -> float | None:
        """What hours cost; None where no price is given."""
        if not self.known:
            return None
        return accelerator_hours * (self.accelerator_hour or 0.0) + cpu_hours * (self.cpu_hour or 0.0)


def budget_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """A budget of money needs prices."""
    budget, prices = recipe.get("budget"), recipe.get("prices")
    if not isinstance(budget, dict) or budget.get("money") is None:
        return
    given = prices if isinstance(prices, dict) else {}
    if given.get("accelerator_hour") is None and given.get("cpu_hour") is None:
        remedy = "add `prices: {accelerator_hour: ..., cpu_hour: ...}`"
        yield Problem(("budget", "money"), "no price is given to count it with", remedy=remedy)
