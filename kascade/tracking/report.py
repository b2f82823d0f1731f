"""The run as one self-contained HTML page, made from its folder alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kascade.recipe.plan_actual import actual_table, plan_against_actual
from kascade.recipe.plan_words import PlanTable
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder
from kascade.tracking import answers, figures, wording
from kascade.tracking.lineage_figure import lineage
from kascade.tracking.provenance import Provenance, head_line, provenance
from kascade.tracking.summarise import summarise
from kascade.tracking.summary import AttemptSummary, Recovered, RunSummary, StageSummary

if TYPE_CHECKING:
    from jinja2 import Environment

ABSENT = "n/a"
LONGEST_ANSWER = 4000  # characters of an answer shown; the rest is counted
# Curves in the order a reader looks for them; others of the same training follow.
FIRST_CURVES = ("reward", "loss", "response_tokens", "entropy", "logprob_gap", "kl", "reverse_kl", "win_rate")
CURVES_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Curves:
    """The curves of one attempt: figures by name, those beyond the first six apart; notes with counts."""

    attempt: AttemptSummary
    shown: Mapping[str, str]
    folded: Mapping[str, str]
    notes: Mapping[str, int]


def write_report(run: Path) -> Path:
    """Write `report.html` of a run, whole or partial, and return its path."""
    path = RunFolder(run).report
    summary = summarise(run)
    write_text(path, render(summary, provenance(run, summary), _against(run, summary)))
    return path


def _against(run: Path, summary: RunSummary) -> PlanTable | None:
    """What was planned against what was taken; None before anything was, or without a readable recipe."""
    if summary.recipe is None or not summary.costs:
        return None
    return actual_table(plan_against_actual(RunFolder.tolerant(run), summary.recipe))


def render(summary: RunSummary, origin: Provenance, against: PlanTable | None = None) -> str:
    """The page. All text of models and users is escaped by the template; figures escape their own."""
    from markupsafe import Markup

    template = template_environment(autoescape=True).get_template("report.html.jinja")
    places = ["base", *(stage.title for stage in summary.stages)]
    history = {name: summary.history(name) for name in summary.benchmarks}
    drawn = {name: figures.trajectory(name, places, found) for name, found in history.items() if found}
    return template.render(
        summary=summary,
        origin=origin,
        head=head_line(origin, summary),
        began=summary.base is not None,
        wording=wording,
        answers=answers,
        numbers=[(name, point) for name, found in history.items() for point in found],
        overview=Markup(figures.changes(summary.changes)) if summary.changes else None,
        trajectories={name: Markup(svg) for name, svg in drawn.items()},
        changes={change.benchmark: change for change in summary.changes},
        recoveries=[(rows, Markup(figures.recovery(rows))) for rows in by_stage(summary.regressions())],
        curves={s.name: [training_curves(a) for a in s.attempts if a.curve] for s in summary.stages},
        lineage=Markup(lineage(summary)),
        time=Markup(figures.time_by_step(summary.costs)) if summary.costs else None,
        parts=time_by_kind(summary),
        against=against,
        ended=ended,
    )


def template_environment(*, autoescape: bool) -> Environment:
    """Templates beside this file, with the number formats they share."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "span": span,
        "clipped": clipped,
        "p": p_value,
    }
    return environment


def by_stage(found: Sequence[Recovered]) -> list[list[Recovered]]:
    """Regressions grouped by the stage that caused them, in order."""
    groups: dict[str, list[Recovered]] = {}
    for one in found:
        groups.setdefault(one.stage.name, []).append(one)
    return list(groups.values())


def training_curves(attempt: AttemptSummary) -> Curves:
    from markupsafe import Markup

    series = figures.curve_series(attempt.curve)
    skipped = [int(row["step"]) for row in attempt.curve if row.get("note")]
    order = [*(name for name in FIRST_CURVES if name in series), *sorted(series.keys() - set(FIRST_CURVES))]
    drawn = {name: Markup(figures.curve(name, *series[name], skipped)) for name in order}
    shown = dict(list(drawn.items())[:CURVES_SHOWN])
    notes = Counter(str(row["note"]) for row in attempt.curve if row.get("note"))
    return Curves(attempt, shown, {k: v for k, v in drawn.items() if k not in shown}, notes)


def time_by_kind(summary: RunSummary) -> Mapping[str, str]:
    """Wall time by kind of work over all steps, for the legend: only kinds that occur."""
    seconds = dict.fromkeys(figures.TIME_KINDS, 0.0)
    for cost in summary.costs:
        for kind in figures.TIME_KINDS:
            seconds[kind] += cost.other_s if kind == "other" else cost.sections.get(kind, 0.0)
    return {kind: wording.duration(spent) for kind, spent in seconds.items() if spent > 0}


def ended(stage: StageSummary) -> str:
    """How a stage ended, in two or three words."""
    if stage.outcome is not None:
        return wording.OUTCOME_WORDS[stage.outcome.decision]
    return "not settled yet" if stage.attempts else "not begun"


def number(value: float | None) -> str:
    return ABSENT if value is None or not math.isfinite(value) else f"{value:.3f}"


def signed(value: float | None) -> str:
    return ABSENT if value is None or not math.isfinite(value) else f"{value:+.3f}"


def span(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{low:.3f} to {high:.3f}" if math.isfinite(low) else ABSENT


def p_value(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2g}"


def clipped(text: str) -> str:
    """At most `LONGEST_ANSWER` characters, saying how many were left out."""
    left = len(text) - LONGEST_ANSWER
    return text if left <= 0 else f"{text[:LONGEST_ANSWER]}\n… {left} more characters"
