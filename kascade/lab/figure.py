"""Score against updates and against CPU seconds: lost benchmarks above, kept ones below."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kascade.lab.results import ArmSummary, Moment, RaceResult, SeedSpread
from kascade.lab.settings import ARM_WORDS
from kascade.tracking.svg import Scale, element, figure, line, polyline, text, ticks, title

PANEL, GAP, LEFT, TOP, HEIGHT = 400.0, 70.0, 50.0, 46.0, 190.0
Value = Callable[[Moment], SeedSpread | None]


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing: what goes up and what goes across, and lines across it by label."""

    heading: str
    unit: str
    across: Callable[[Moment], float]
    up: Value
    levels: Mapping[str, float]


def race_figure(race: RaceResult) -> str:
    """Two columns (updates, CPU seconds), a row for the lost benchmarks and one for the kept ones if any."""
    marks = {"teachers": race.teacher_level, "start": race.start_lost}
    rows: list[tuple[str, Value, Mapping[str, float]]] = [("Lost benchmarks", lost, marks)]
    body = _legend(race.arms)
    if race.start_kept is not None:
        rows.append(("Kept benchmarks", kept, {"start": race.start_kept}))
    for row, (heading, up, levels) in enumerate(rows):
        y = Scale(
            *_range(race.arms, up, levels), TOP + row * (HEIGHT + GAP) + HEIGHT, TOP + row * (HEIGHT + GAP)
        )
        for column, (unit, across) in enumerate((("updates", updates), ("CPU seconds of training", cpu))):
            left = LEFT + column * (PANEL + GAP)
            body += _panel(race.arms, Panel(heading, unit, across, up, levels), left, y)
    height = TOP + len(rows) * (HEIGHT + GAP)
    return figure(
        "Recovery: score against updates and CPU seconds", LEFT + 2 * PANEL + GAP + 20, height, body
    )


def lost(moment: Moment) -> SeedSpread | None:
    return moment.lost


def kept(moment: Moment) -> SeedSpread | None:
    return moment.kept


def updates(moment: Moment) -> float:
    return moment.step


def cpu(moment: Moment) -> float:
    return moment.cpu_s


def _range(arms: Sequence[ArmSummary], up: Value, levels: Mapping[str, float]) -> tuple[float, float]:
    spreads = [spread for arm in arms for moment in arm.moments if (spread := up(moment))]
    values = [*levels.values()] + [end for s in spreads for end in (s.low, s.high)]
    return min(0.0, *values), max(1.0, *values)


def _panel(arms: Sequence[ArmSummary], panel: Panel, left: float, y: Scale) -> list[str]:
    right, bottom = left + PANEL, y.start
    x = Scale(0, max(panel.across(moment) for arm in arms for moment in arm.moments), left, right)
    body = [text(left, y.end - 10, panel.heading, class_="name")]
    for tick in ticks(y.low, y.high):
        body += [
            line(left, y(tick), right, y(tick), "grid"),
            text(left - 6, y(tick) + 3.5, f"{tick:.3g}", anchor="end"),
        ]
    body += [text(x(tick), bottom + 16, f"{tick:g}", anchor="middle") for tick in ticks(x.low, x.high)]
    body.append(text((left + right) / 2, bottom + 34, panel.unit, anchor="middle"))
    for label, level in panel.levels.items():
        body.append(line(left, y(level), right, y(level), f"level {label}"))
        body.append(text(right, y(level) - 4, f"{label} {level:.2f}", anchor="end"))
    for arm in arms:
        body += _curve(arm, panel, x, y)
    return body


def _curve(arm: ArmSummary, panel: Panel, x: Scale, y: Scale) -> list[str]:
    """Mean over seeds as a line, their range as a band."""
    drawn = [(x(panel.across(moment)), spread) for moment in arm.moments if (spread := panel.up(moment))]
    upper = [(place, y(spread.high)) for place, spread in drawn]
    lower = [(place, y(spread.low)) for place, spread in reversed(drawn)]
    edge = " ".join(f"{a:.1f},{b:.1f}" for a, b in upper + lower)
    dots = [
        element(
            "circle",
            title(f"{ARM_WORDS[arm.arm]}, {panel.across(moment):.4g} {panel.unit}: {spread.mean:.3f}"),
            cx=place,
            cy=y(spread.mean),
            r=3,
        )
        for moment, (place, spread) in zip(arm.moments, drawn, strict=True)
    ]
    body = [element("polygon", points=edge, class_="range")]
    body.append(polyline([(place, y(spread.mean)) for place, spread in drawn], "mean"))
    return [element("g", *body, *dots, class_=f"arm {arm.arm}")]


def _legend(arms: Sequence[ArmSummary]) -> list[str]:
    body = []
    for index, arm in enumerate(arms):
        start = LEFT + index * 215
        body.append(element("g", polyline([(start, 12), (start + 24, 12)], "mean"), class_=f"arm {arm.arm}"))
        body.append(text(start + 30, 16, ARM_WORDS[arm.arm], class_="name"))
    return body
