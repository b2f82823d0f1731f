"""What a run has spent so far, in the units of a budget."""

from __future__ import annotations

from collections.abc import Mapping

from kascade.recipe.schema import Recipe
from kascade.storage.run_folder import ACCELERATOR, RunFolder

UNITS: Mapping[str, str] = {"accelerator_hours": "accelerator hours", "cpu_hours": "CPU hours"}
FEW = 0.1  # smaller amounts are shown with two digits that count
Spend = Mapping[str, float]  # by the names of `Budget`'s fields


def spent(layout: RunFolder, recipe: Recipe) -> dict[str, float]:
    """What all steps have used, interrupted tries included; money where the recipe gives prices."""
    costs = layout.costs().values()
    hours = {
        "accelerator_hours": sum(float(cost.get(ACCELERATOR, 0.0)) for cost in costs) / 3600,
        "cpu_hours": sum(float(cost["cpu_s"]) for cost in costs) / 3600,
    }
    return with_money(hours, recipe)


def with_money(hours: Spend, recipe: Recipe) -> dict[str, float]:
    """Hours, and what they cost where the recipe gives prices."""
    money = recipe.prices.money(hours["accelerator_hours"], hours["cpu_hours"])
    return {**hours, **({"money": money} if money is not None else {})}


def in_words(name: str, amount: float, recipe: Recipe) -> str:
    """ "2.50 CPU hours", "12.00 EUR"."""
    number = f"{amount:,.2f}" if amount >= FEW or not amount else f"{amount:.2g}"
    return f"{number} {UNITS.get(name, recipe.prices.currency)}"
