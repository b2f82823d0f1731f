"""The report's figures, each a function from the summary's types to inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kascade.tracking.costs import StepCost
from kascade.tracking.summary import BenchmarkChange, HistoryPoint, Mark, Point, Recovered
from kascade.tracking.svg import Scale, element, figure, line, polyline, shorten, text, ticks, title, words

MARK_WORDS: Mapping[Mark, str] = {
    "regressed": "lost",
    "recovered": "recovered",
    "rolled_back": "rolled back to before the stage",
}
TIME_KINDS = ("sampling", "training", "grading", "teachers", "other")
CURVE_POINTS = 240  # more than that is narrower than a pixel


def changes(rows: Sequence[BenchmarkChange]) -> str:
    """Base against final checkpoint: one row a benchmark, base hollow, final filled."""
    left, right, step = 180.0, 900.0, 32.0
    low, high = _reward_range([point for row in rows for point in (row.before, row.after)])
    x = Scale(low, high, left, right)
    height = 34 + step * len(rows)
    body = _columns(x, 14, height - 20)
    for index, row in enumerate(rows):
        y = 30 + step * index
        spoken = f"{row.benchmark}: base {_spoken(row.before)}; final {_spoken(row.after)}"
        body += [
            text(left - 14, y + 4, shorten(row.benchmark, 24), class_="name", anchor="end"),
            element(
                "g",
                title(spoken),
                line(x(row.before.mean), y, x(row.after.mean), y, f"stem {row.direction}"),
                _across(row.after, x, y),
                element("circle", cx=x(row.before.mean), cy=y, r=5, class_="dot base"),
                element("circle", cx=x(row.after.mean), cy=y, r=6, class_=f"dot {row.direction}"),
            ),
            text(right + 18, y + 4, f"{row.difference:+.2f}", class_=f"delta {row.direction}"),
            text(right + 64, y + 4, f"[{row.low:+.2f}, {row.high:+.2f}]"),
        ]
    return figure("Every benchmark, base against final checkpoint", 1090, height, body)


def trajectory(benchmark: str, places: Sequence[str], points: Sequence[HistoryPoint]) -> str:
    """One benchmark through the cascade: sampled with its interval, greedy dashed, the guard's marks.

    places: label of each column, the base first.
    """
    width, top, bottom = 380.0, 12.0, 150.0
    low, high = _reward_range([p.point for p in points], greedy=True)
    y = Scale(low, high, bottom, top)
    x = Scale(0, max(len(places) - 1, 1), 44, width - 18)
    body = [_goal_band(x, column, top, bottom) for column in sorted({p.column for p in points if p.goal})]
    body += _rows(y, 36, width - 8)
    body += [_slanted(x(column), bottom + 14, place) for column, place in enumerate(places)]
    kept = [p for p in points if p.accepted and p.on_main_line]
    body.append(_interval_band(x, y, kept))
    body.append(polyline([(x(p.column), y(p.point.mean)) for p in kept], "series"))
    greedy = [(x(p.column), y(p.point.greedy)) for p in kept if p.point.greedy is not None]
    body.append(polyline(greedy, "series greedy"))
    body += [_history_mark(x(p.column), y, p) for p in points]
    return figure(f"{benchmark} through all stages", width, bottom + 76, body)


def recovery(rows: Sequence[Recovered]) -> str:
    """Before, lost and recovered, as bars, for the benchmarks one stage made fall."""
    left, bottom, top, group = 36.0, 150.0, 22.0, 132.0
    y = Scale(0, max([1.0, *(row.before for row in rows)]), bottom, top)
    width = max(left + group * len(rows) + 10, 180)
    body = _rows(y, left, width - 6)
    for index, row in enumerate(rows):
        start = left + 14 + group * index
        end = "recovered" if not row.still_regressed else "not_recovered"
        bars = [("before", row.before), ("regressed", row.low), (end, row.after)]
        for place, (kind, value) in enumerate(bars):
            body += _bar(start + 36 * place, y, kind, value, row.benchmark)
        body.append(text(start + 50, bottom + 18, shorten(row.benchmark, 19), class_="name", anchor="middle"))
    return figure(f"Before, lost and recovered in {rows[0].stage.title}", width, bottom + 28, body)


def curve(name: str, steps: Sequence[int], values: Sequence[float], skipped: Sequence[int]) -> str:
    """One training curve; ticks on the axis mark steps whose update was skipped."""
    width, top, bottom = 250.0, 12.0, 96.0
    finite = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    if not finite:
        return figure(f"{name}: no finite value", width, 40, [text(8, 24, "no finite value")])
    stride = math.ceil(len(finite) / CURVE_POINTS)
    finite = finite[::stride] if (len(finite) - 1) % stride == 0 else [*finite[::stride], finite[-1]]
    heights = [value for _, value in finite]
    y = Scale(min(heights), max(heights), bottom, top)
    x = Scale(min(steps), max(steps), 58, width - 10)
    body = _rows(y, 56, width - 6, count=3)
    body += [line(x(step), bottom + 1, x(step), bottom + 8, "skipped") for step in skipped]
    body.append(polyline([(x(step), y(value)) for step, value in finite], "series"))
    body.append(element("circle", cx=x(finite[-1][0]), cy=y(heights[-1]), r=2.5, class_="dot up"))
    body += [
        text(58, bottom + 20, f"step {min(steps)}"),
        text(width - 10, bottom + 20, f"{max(steps)}", anchor="end"),
    ]
    spoken = f"{name}: from {heights[0]:.4g} to {heights[-1]:.4g} over {len(steps)} steps"
    return figure(spoken, width, bottom + 28, body)


def time_by_step(costs: Sequence[StepCost]) -> str:
    """Wall seconds of each step by kind of work."""
    left, right, row_height = 240.0, 700.0, 22.0
    x = Scale(0, max([cost.wall_s for cost in costs], default=1.0) or 1.0, left, right)
    body = []
    for index, cost in enumerate(costs):
        y = 8 + row_height * index
        body.append(text(left - 10, y + 11, shorten(cost.step, 38), class_="name", anchor="end"))
        spent, kinds = 0.0, {**cost.sections, "other": cost.other_s}
        for kind in TIME_KINDS:
            seconds = kinds.get(kind, 0.0)
            if seconds > 0:
                body.append(
                    element(
                        "rect",
                        title(f"{cost.step}: {kind} {seconds:.1f} s"),
                        x=x(spent),
                        y=y,
                        width=max(x(spent + seconds) - x(spent), 0.5),
                        height=14,
                        class_=f"time {kind}",
                    )
                )
            spent += seconds
        body.append(text(x(spent) + 8, y + 11, f"{cost.wall_s:.1f} s"))
    return figure("Time by step and kind of work", 780, 14 + row_height * len(costs), body)


def curve_series(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of every number in metrics.jsonl's rows, by name."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float) and not isinstance(value, bool):
                steps, values = series.setdefault(name, ([], []))
                steps.append(int(row["step"]))
                values.append(float(value))
    return series


def _spoken(point: Point) -> str:
    interval = "" if point.interval is None else " [{:.3f}, {:.3f}]".format(*point.interval)
    drawn = f"{point.score.num_tasks} tasks, {point.samples_per_task:g} samples each ({point.score.phase})"
    greedy = "" if point.greedy is None else f", greedy {point.greedy:.3f}"
    return f"{point.mean:.3f}{interval}, {drawn}{greedy}"


def _reward_range(points: Sequence[Point], *, greedy: bool = False) -> tuple[float, float]:
    """0 to 1, widened where a reward is outside."""
    values = [value for p in points for value in (p.mean, *(p.interval or ())) if math.isfinite(value)]
    if greedy:
        values += [p.greedy for p in points if p.greedy is not None]
    return min([0.0, *values]), max([1.0, *values])


def _columns(x: Scale, top: float, bottom: float) -> list[str]:
    marks = []
    for tick in ticks(x.low, x.high):
        marks.append(line(x(tick), top, x(tick), bottom, "grid"))
        marks.append(text(x(tick), bottom + 14, f"{tick:g}", anchor="middle"))
    return marks


def _rows(y: Scale, left: float, right: float, count: int = 4) -> list[str]:
    marks = []
    for tick in ticks(y.low, y.high, count):
        marks.append(line(left, y(tick), right, y(tick), "grid"))
        marks.append(text(left - 6, y(tick) + 3.5, f"{tick:.4g}", anchor="end"))
    return marks


def _across(point: Point, x: Scale, y: float) -> str:
    return "" if point.interval is None else polyline([(x(end), y) for end in point.interval], "whisker")


def _upright(point: Point, x: float, y: Scale) -> str:
    return "" if point.interval is None else polyline([(x, y(end)) for end in point.interval], "whisker")


def _goal_band(x: Scale, column: int, top: float, bottom: float) -> str:
    half = (x(1) - x(0)) / 2
    return element("rect", x=x(column) - half, y=top, width=2 * half, height=bottom - top, class_="goal")


def _slanted(x: float, y: float, label: str) -> str:
    placed = f"translate({x + 3:.1f},{y:.1f}) rotate(-40)"
    return element("text", words(shorten(label, 16)), class_="label", text_anchor="end", transform=placed)


def _interval_band(x: Scale, y: Scale, points: Sequence[HistoryPoint]) -> str:
    ends = [(x(p.column), p.point.interval) for p in points if p.point.interval]
    upper = [(column, y(interval[1])) for column, interval in ends]
    lower = [(column, y(interval[0])) for column, interval in reversed(ends)]
    return element("polygon", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in upper + lower), class_="band")


def _history_mark(x: float, y: Scale, p: HistoryPoint) -> str:
    state = MARK_WORDS[p.mark] if p.mark else "" if p.accepted else "not accepted"
    spoken = f"{p.place} ({p.attempt.manifest.attempt}): {_spoken(p.point)}{'; ' if state else ''}{state}"
    middle = y(p.point.mean)
    match p.mark:
        case "regressed":
            drawn = f"M{x - 5.5:.1f},{middle - 5:.1f}h11l-5.5,10z"
            shape = element("path", d=drawn, class_="mark regressed")
        case "recovered":
            shape = element("circle", cx=x, cy=middle, r=5.5, class_="mark recovered")
        case "rolled_back":
            shape = element("rect", x=x - 4.5, y=middle - 4.5, width=9, height=9, class_="mark rolled_back")
        case None:
            kind = "up" if p.accepted and p.on_main_line else "base"
            shape = element("circle", cx=x, cy=middle, r=3, class_=f"dot {kind}")
    return element("g", title(spoken), _upright(p.point, x, y), shape)


def _bar(x: float, y: Scale, kind: str, value: float | None, benchmark: str) -> list[str]:
    if value is None:
        return [text(x + 14, y(0) - 6, "none", anchor="middle")]
    return [
        element(
            "rect",
            title(f"{benchmark} {kind}: {value:.3f}"),
            x=x,
            y=y(value),
            width=28,
            height=max(y(0) - y(value), 0.5),
            rx=2,
            class_=f"bar {kind}",
        ),
        text(x + 14, y(value) - 5, f"{value:.2f}", anchor="middle"),
    ]
