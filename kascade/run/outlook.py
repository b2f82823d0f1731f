"""What the plan expects of what has not begun yet, corrected by what the run has spent so far."""

from __future__ import annotations

from datetime import UTC, datetime

from kascade.recipe.forecast import hours_of, measurements_for
from kascade.recipe.formula import Hours
from kascade.recipe.measured import Measurement, measure
from kascade.recipe.schema import Recipe
from kascade.recipe.work import END, Unit, units_of
from kascade.run.budget import with_money
from kascade.storage.run_folder import RunFolder

HOUR = 3600.0
FIGURES = {"accelerator_hours": "accelerator", "cpu_hours": "cpu"}


def still_needed(folder: RunFolder, recipe: Recipe, before: str) -> dict[str, float]:
    """Hours and money that `before` is expected to take; empty where nothing says.

    before: a stage (its training and its benchmarks), `STAGE.recover-N` (with its benchmarks), or `retain`.
    What an interrupted try has paid for is not asked for again.
    """
    took = measure(folder, recipe, folder.root.name)
    known, today = measurements_for(recipe), datetime.now(UTC).date().isoformat()
    expected = {unit.key: hours_of(recipe, unit, known, today) for unit in units_of(recipe)}
    wanted = [unit for unit in units_of(recipe) if _is_of(unit, before)]
    if any(expected[unit.key] is None for unit in wanted) or not wanted:
        return {}
    hours = {}
    for name, field in FIGURES.items():
        factor = _correction(took, expected, field)
        hours[name] = sum(_left(unit, expected[unit.key], took, field, factor) for unit in wanted) / HOUR
    return with_money(hours, recipe)


def _is_of(unit: Unit, before: str) -> bool:
    stage, _, attempt = before.partition(".")
    if before == "retain":
        return unit.stage == END
    return unit.stage == stage and (unit.part == "recovery") == bool(attempt)


def _correction(took: Measurement, expected: dict[str, Hours | None], field: str) -> float:
    """Actual to expected over what has come to its end in this run; 1 before anything has."""
    pairs = [
        (getattr(one, f"{field}_s"), getattr(hours, field).expected * one.times)
        for key, one in took.units.items()
        if one.whole and (hours := expected.get(key)) is not None
    ]
    actual, planned = (sum(part) for part in zip(*pairs, strict=True)) if pairs else (0.0, 0.0)
    return actual / planned if actual and planned else 1.0


def _left(unit: Unit, hours: Hours | None, took: Measurement, field: str, factor: float) -> float:
    """Seconds of one unit; a recovery is a new one each time."""
    if hours is None:
        return 0.0
    one = took.units.get(unit.key)
    paid = getattr(one, f"{field}_s") if one and not one.whole and unit.part != "recovery" else 0.0
    return max(0.0, float(getattr(hours, field).expected) * factor - paid)
