"""What a recipe is going to cost: hours, tokens, storage and money, each with what it rests on.

A measured run of the same model comes first, its figures scaled by the work. Then comes the formula of a
known device. Where neither is there, tokens are all that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil, inf, log
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from kascade.recipe.budget import Prices
from kascade.recipe.formula import Hours, by_formula
from kascade.recipe.layout import Range
from kascade.recipe.measured import LIGHT, Measurement, Took, shipped
from kascade.recipe.schema import Recipe
from kascade.recipe.storage_need import StorageNeed, storage_need
from kascade.recipe.work import Unit, units_of

# How far the same work spreads from run to run: 34 parts of three further quickstarts lay between 0.59 and
# 4.16 times the shipped one, 30 of them within this.
SAME = (0.6, 1.0, 2.5)
LIKE = (0.4, 1.0, 2.5)  # where only other work of the model was measured, or work of another size: ours
NEAR = log(3)  # of sizes: beyond three times, or a third, work is of another size
START_S = 1.0  # of a step, loading and saving: parts of the smallest quickstart took 0.6 to 2.4 CPU seconds
HOUR = 3600.0
NOTHING_SAYS = "nothing says"  # the basis of work that was never measured and has no formula
LEVELS = ("low", "expected", "high")


class _Planned(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Span(_Planned):
    """One figure."""

    low: float
    expected: float
    high: float

    @classmethod
    def of(cls, amount: Range, unit: float = 1.0) -> Span:
        return cls(**{name: getattr(amount, name) / unit for name in LEVELS})


class Figures(_Planned):
    """What work takes; None where nothing says. money: in `Forecast.currency`."""

    wall_hours: Span | None
    cpu_hours: Span | None
    accelerator_hours: Span | None
    money: Span | None
    tokens_generated: Span
    tokens_trained: Span


class PlannedWork(_Planned):
    """One piece of work. times: how often at worst; rounds: how often it is expected (recoveries only).

    at_worst: how many times its high figure it takes where every look of the samples is drawn.
    """

    stage: str
    part: str
    times: int
    rounds: float
    at_worst: float
    figures: Figures
    basis: str
    date: str | None


class Forecast(_Planned):
    """total: with the recoveries expected. worst: with every recovery, and every look of the samples."""

    rows: tuple[PlannedWork, ...]
    total: Figures
    worst: dict[str, float | None]
    storage: StorageNeed | None
    currency: str | None


def forecast(recipe: Recipe, earlier: Sequence[Measurement] = (), today: str | None = None) -> Forecast:
    """The forecast of a recipe. earlier: own runs, which count before those that ship. today: ISO date."""
    date = today or datetime.now(UTC).date().isoformat()
    known = measurements_for(recipe, earlier)
    rows = []
    for unit in units_of(recipe):
        hours = hours_of(recipe, unit, known, date)
        rows.append(_row(recipe.prices, unit.key, hours, unit, _rounds(recipe, known, unit)))
    if light := _light(recipe, known):
        rows.append(_row(recipe.prices, LIGHT, light, None, 0.0))
    return Forecast(
        rows=tuple(rows),
        total=_total(rows),
        worst=_worst(rows),
        storage=storage_need(recipe),
        currency=recipe.prices.currency if recipe.prices.known else None,
    )


def measurements_for(recipe: Recipe, earlier: Sequence[Measurement] = ()) -> list[Measurement]:
    """Own runs of the recipe's model; where there are none, those that ship."""
    own = [one for one in earlier if one.model == recipe.model.source]
    return own or [one for one in shipped() if one.model == recipe.model.source]


def hours_of(recipe: Recipe, unit: Unit, known: Sequence[Measurement], date: str) -> Hours | None:
    """What one unit takes; None where nothing says."""
    return _measured(recipe, unit, known) or by_formula(recipe, unit, date)


def _measured(recipe: Recipe, unit: Unit, known: Sequence[Measurement]) -> Hours | None:
    kinds = {stage.name: stage.kind for stage in recipe.stages}
    kind = kinds.get(unit.stage, unit.stage)
    same = [
        (one, took)
        for one in known
        if (took := one.units.get(unit.key)) and took.whole and took.size and took.kind == kind
    ]
    if not same:
        return _like(unit, kind, known)
    nearest = min(_distance(unit, took) for _, took in same)
    used = [(one, took) for one, took in same if _distance(unit, took) <= nearest + 0.01]
    spread = SAME if nearest <= NEAR else LIKE
    return _scaled(unit, used, spread, "measured in")


def _like(unit: Unit, kind: str, known: Sequence[Measurement]) -> Hours | None:
    """By other work of the same model: of the same kind of stage, else of the same part. The nearest in size
    says most: of work of seconds, most is the start."""
    found = [
        (one, took)
        for one in known
        for key, took in one.units.items()
        if key.endswith(f".{unit.part}") and took.whole and took.size
    ]
    alike = [(one, took) for one, took in found if took.kind == kind] or found
    nearest = min((_distance(unit, took) for _, took in alike), default=0.0)
    used = [(one, took) for one, took in alike if _distance(unit, took) <= nearest + NEAR]
    return _scaled(unit, used, LIKE, "other work of") if used else None


def _distance(unit: Unit, took: Took) -> float:
    return abs(log(unit.size / took.size)) if unit.size else 0.0


def _scaled(
    unit: Unit, used: Sequence[tuple[Measurement, Took]], spread: tuple[float, float, float], word: str
) -> Hours:
    def seconds(read: Callable[[Took], float]) -> Range:
        found = [_with_start(read(took) / took.times, unit.size / took.size) for _, took in used]
        return Range(min(found) * spread[0], fmean(found) * spread[1], max(found) * spread[2])

    names = ", ".join(dict.fromkeys(one.name for one, _ in used))
    places = ", ".join(dict.fromkeys(one.processor for one, _ in used))
    return Hours(
        wall=seconds(lambda took: took.wall_s),
        cpu=seconds(lambda took: took.cpu_s),
        accelerator=seconds(lambda took: took.accelerator_s),
        basis=f"{word} {names} ({places})",
        date=max(one.date for one, _ in used),
    )


def _with_start(measured: float, ratio: float) -> float:
    """Seconds of `ratio` times the work: what a step takes in any case does not grow or shrink with it."""
    start = min(measured, START_S)
    return start + (measured - start) * ratio


def _light(recipe: Recipe, known: Sequence[Measurement]) -> Hours | None:
    """Steps without a model, by the number of stages."""
    counted = [one for one in known if LIGHT in one.units and one.stages]
    used = [(one, one.units[LIGHT]) for one in _of_recipe(recipe, counted)]
    if not used:
        return None
    sized = [(one, took.model_copy(update={"size": float(one.stages)})) for one, took in used]
    about = Unit(LIGHT, "benchmarks", Range(0, 0, len(recipe.stages)), Range(0, 0, 0))
    return _scaled(about, sized, SAME, "measured in")


def _of_recipe(recipe: Recipe, known: Sequence[Measurement]) -> list[Measurement]:
    """The runs of this very recipe; where there are none, those of the recipe that is most like it in size.

    What a run loses depends on how long it trains: a rehearsal of a few steps says nothing about a whole run.
    """
    if own := [one for one in known if one.recipe == recipe.name]:
        return own
    sizes = {unit.key: unit.size for unit in units_of(recipe) if unit.part == "train"}

    def apart(one: Measurement) -> float:
        both = [(sizes[key], took.size) for key, took in one.units.items() if sizes.get(key) and took.size]
        return fmean(abs(log(mine / its)) for mine, its in both) if both else inf

    nearest = min(map(apart, known), default=inf)
    return [one for one in known if apart(one) == nearest]


def _rounds(recipe: Recipe, known: Sequence[Measurement], unit: Unit) -> float:
    """Recoveries that a stage is expected to need: the mean of measured runs, none where there are none."""
    if unit.part != "recovery" or not known:
        return 0.0
    trained = _of_recipe(recipe, [one for one in known if f"{unit.stage}.train" in one.units])
    found = [one.units[unit.key].times if unit.key in one.units else 0 for one in trained]
    return min(fmean(found), unit.times) if found else 0.0


def _row(prices: Prices, key: str, hours: Hours | None, unit: Unit | None, rounds: float) -> PlannedWork:
    stage, _, part = key.partition(".")
    none = Range(0, 0, 0)
    figures = Figures(
        wall_hours=Span.of(hours.wall, HOUR) if hours else None,
        cpu_hours=Span.of(hours.cpu, HOUR) if hours else None,
        accelerator_hours=Span.of(hours.accelerator, HOUR) if hours else None,
        money=_money(prices, hours) if hours else None,
        tokens_generated=Span.of(unit.generated if unit else none),
        tokens_trained=Span.of(unit.trained if unit else none),
    )
    basis = hours.basis if hours else f"{NOTHING_SAYS}: name a device under `hardware`, or an earlier run"
    times = unit.times if unit else 1
    return PlannedWork(
        stage=stage,
        part=part or "steps without a model",
        times=times,
        rounds=rounds,
        at_worst=unit.at_worst if unit else 1.0,
        figures=figures,
        basis=basis,
        date=hours.date if hours else None,
    )


def _money(prices: Prices, hours: Hours) -> Span | None:
    if not prices.known:
        return None
    pairs = [(getattr(hours.accelerator, level) / HOUR, getattr(hours.cpu, level) / HOUR) for level in LEVELS]
    low, expected, high = (prices.money(*pair) or 0.0 for pair in pairs)
    return Span(low=low, expected=expected, high=high)


def _total(rows: Sequence[PlannedWork]) -> Figures:
    return Figures.model_validate({name: _sum(rows, name) for name in Figures.model_fields})


def _sum(rows: Iterable[PlannedWork], name: str) -> Span | None:
    """low: without recoveries; expected: with those that are expected; high: with these, rounded up."""
    low = expected = high = 0.0
    for row, span in _spans(rows, name):
        if span is None:
            return None
        recovery = row.part == "recovery"
        low += 0.0 if recovery else span.low
        expected += span.expected * (row.rounds if recovery else 1)
        high += span.high * (ceil(row.rounds) if recovery else 1)
    return Span(low=low, expected=expected, high=high)


def _worst(rows: Sequence[PlannedWork]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in Figures.model_fields:
        spans = list(_spans(rows, name))
        known = [(row, span) for row, span in spans if span is not None]
        found[name] = (
            sum(row.times * row.at_worst * span.high for row, span in known)
            if len(known) == len(spans)
            else None
        )
    return found


def _spans(rows: Iterable[PlannedWork], name: str) -> Iterator[tuple[PlannedWork, Span | None]]:
    return ((row, getattr(row.figures, name)) for row in rows)


def by_stage(found: Forecast) -> Mapping[str, list[PlannedWork]]:
    """The rows of each stage, in order."""
    groups: dict[str, list[PlannedWork]] = {}
    for row in found.rows:
        groups.setdefault(row.stage, []).append(row)
    return groups
