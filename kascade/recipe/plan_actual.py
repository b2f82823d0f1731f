"""What was planned against what a run has taken, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from kascade.recipe.forecast import Forecast, Span, forecast
from kascade.recipe.measured import LIGHT, Measurement, measure
from kascade.recipe.plan_words import PlanTable, hours
from kascade.recipe.schema import Recipe
from kascade.storage.run_folder import RunFolder

HOUR = 3600.0
FIELDS = {"cpu_hours": "cpu_s", "accelerator_hours": "accelerator_s", "wall_hours": "wall_s"}


class Against(BaseModel):
    """One figure of one stage, in hours. planned: with the recoveries made; None where nothing said."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    figure: str
    planned: Span | None
    actual: float

    @property
    def ratio(self) -> float | None:
        """Actual to planned."""
        return self.actual / self.planned.expected if self.planned and self.planned.expected else None


def plan_against_actual(folder: RunFolder, recipe: Recipe) -> tuple[Against, ...]:
    """By stage and in all, for the figures that the run has spent anything of. The run itself is no basis."""
    took = measure(folder, recipe, folder.root.name)
    planned = forecast(recipe)
    found = []
    for name, seconds in FIELDS.items():
        if sum(getattr(one, seconds) for one in took.units.values()):
            found += list(_compared(planned, took, name, seconds))
    return tuple(found)


def _compared(planned: Forecast, took: Measurement, name: str, seconds: str) -> Iterator[Against]:
    """The stages that have taken anything, then all of them together."""
    rows = {LIGHT if row.stage == LIGHT else f"{row.stage}.{row.part}": row for row in planned.rows}
    stages: dict[str, list[tuple[Span | None, float]]] = {}
    for key in (*(key for key in rows if key in took.units), *(key for key in took.units if key not in rows)):
        unit, row = took.units[key], rows.get(key)
        times = unit.times if key.endswith(".recovery") else 1
        span = _times(getattr(row.figures, name), times) if row else None
        stages.setdefault(key.partition(".")[0], []).append((span, getattr(unit, seconds) / HOUR))
    stages["in all"] = [pair for pairs in stages.values() for pair in pairs]
    for stage, pairs in stages.items():
        whole = sum(actual for _, actual in pairs)
        yield Against(stage=stage, figure=name, planned=_sum([span for span, _ in pairs]), actual=whole)


def _times(span: Span | None, times: int) -> Span | None:
    if span is None:
        return None
    return Span(low=span.low * times, expected=span.expected * times, high=span.high * times)


def _sum(spans: list[Span | None]) -> Span | None:
    known = [span for span in spans if span is not None]
    if len(known) < len(spans) or not known:
        return None
    return Span(
        low=sum(span.low for span in known),
        expected=sum(span.expected for span in known),
        high=sum(span.high for span in known),
    )


def actual_table(found: tuple[Against, ...]) -> PlanTable:
    """Planned and actual side by side."""
    titles = {"cpu_hours": "CPU", "accelerator_hours": "accelerators", "wall_hours": "wall-clock"}
    head = ["stage", "figure", "planned", "between", "actual", "actual to planned"]
    rows = [
        [
            one.stage,
            titles[one.figure],
            hours(one.planned.expected) if one.planned else "?",
            f"{hours(one.planned.low)} and {hours(one.planned.high)}" if one.planned else "",
            hours(one.actual),
            f"{one.ratio:.2f}" if one.ratio is not None else "",
        ]
        for one in found
    ]
    return PlanTable(head, rows, ["planned: with the recoveries that were made; the run itself is no basis"])
