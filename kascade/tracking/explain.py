"""One screen on a checkpoint, a stage or a benchmark: origin, data, verdict, and what the guard did."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kascade.errors import Fault, UserError
from kascade.tracking import wording
from kascade.tracking.report import ended, number
from kascade.tracking.summarise import summarise
from kascade.tracking.summary import AttemptSummary, HistoryPoint, RunSummary, StageSummary

SHORTEST_DIGEST = 4  # hex digits that may stand for a checkpoint


def explain(run: Path, subject: str) -> str:
    """`explain_data` in words. Raises UserError when nothing in the run is called `subject`."""
    return "\n".join(_lines(explain_data(run, subject)))


def explain_data(run: Path, subject: str) -> dict[str, Any]:
    """What is known of a stage or benchmark by name, or of a checkpoint by id, reference or digest prefix.

    Returns plain JSON values; a stage goes before a benchmark of the same name.
    Raises UserError when nothing in the run is called `subject`, or a digest prefix is of several.
    """
    summary = summarise(run)
    for stage in summary.stages:
        if stage.name == subject:
            return _stage(summary, stage)
    if subject in summary.benchmarks:
        return _benchmark(summary, subject)
    return _checkpoint(summary, _find(summary, subject))


def _find(summary: RunSummary, subject: str) -> AttemptSummary:
    everything = (*summary.current, *summary.others)
    prefix = subject.rpartition("sha256:")[2]
    found = [one for one in everything if one.id == subject]
    if not found and len(prefix) >= SHORTEST_DIGEST:
        found = [one for one in everything if one.digest.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    names = [*(s.name for s in summary.stages), *summary.benchmarks, *(one.id for one in everything)]
    if found:
        what, allowed = "is the beginning of several digests", ", ".join(one.digest[:16] for one in found)
    else:
        what, allowed = "is no stage, benchmark or checkpoint of this run", ", ".join(names) or "nothing yet"
    near = get_close_matches(subject, names, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else None
    raise UserError(Fault(repr(subject), what, allowed=allowed, remedy=remedy))


def _stage(summary: RunSummary, stage: StageSummary) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "title": f"{stage.number} · {stage.title}",
        "from": stage.parent.id if stage.parent else None,
        "data": wording.data_of(stage.part),
        "outcome": ended(stage),
        "reasons": list(stage.outcome.reasons) if stage.outcome else [],
        "accepted": str(stage.accepted.ref) if stage.accepted else None,
        "goals": wording.goal_sentence(stage),
        "guard": [wording.regression(one) for one in summary.regressions() if one.stage is stage],
        "attempts": [_attempt(attempt) for attempt in stage.attempts],
    }


def _attempt(attempt: AttemptSummary) -> dict[str, Any]:
    verdict = attempt.verdict
    return {
        "id": attempt.id,
        "digest": attempt.digest,
        "lost": list(verdict.lost_benchmarks) if verdict else None,
        "reasons": {name: found.reason for name, found in verdict.benchmarks.items()} if verdict else {},
    }


def _benchmark(summary: RunSummary, name: str) -> dict[str, Any]:
    return {
        "benchmark": name,
        "domain": summary.domains[name],
        "scores": [_score(point) for point in summary.history(name)],
        "guard": [wording.regression(one) for one in summary.regressions() if one.benchmark == name],
    }


def _score(found: HistoryPoint) -> dict[str, Any]:
    point = found.point
    return {
        "place": found.place,
        "checkpoint": found.attempt.id,
        "mean": point.mean,
        "interval": list(point.interval) if point.interval else None,
        "greedy": point.greedy,
        "phase": point.score.phase,
        "tasks": point.score.num_tasks,
        "samples": point.score.num_samples,
        "pass_at": {str(k): value for k, value in point.score.passes().items()},
        "errors": point.score.num_errors,
        "switch_obeyed": point.score.switch_obeyed,
        "thought": point.score.thought,
        "accepted": found.accepted,
        "goal": found.goal,
        "mark": found.mark,
    }


def _checkpoint(summary: RunSummary, attempt: AttemptSummary) -> dict[str, Any]:
    stage = next((s for s in summary.stages if attempt in s.attempts), None)
    accepted = attempt is summary.base or any(s.accepted is attempt for s in summary.stages)
    return {
        "checkpoint": attempt.id,
        "reference": str(attempt.ref),
        "from": attempt.manifest.parent,
        "teachers": dict(attempt.manifest.teachers),
        "created": attempt.manifest.created,
        "data": wording.data_of(stage.part) if stage else None,
        "state": "final" if attempt is summary.final else "accepted" if accepted else "not accepted",
        "scores": {name: point.mean for name, point in attempt.points.items() if point.graded},
        **{key: value for key, value in _attempt(attempt).items() if key not in ("id", "digest")},
    }


def _lines(data: dict[str, Any]) -> list[str]:
    if "benchmark" in data:
        return _benchmark_lines(data)
    lines = [data.get("title") or data["checkpoint"]]
    for key in ("reference", "state", "outcome", "accepted", "from", "data", "created"):
        if data.get(key):
            lines.append(f"  {key + ':':<10} {data[key]}")
    lines += [
        f"  {'teacher:':<10} {domain}: {reference}" for domain, reference in data.get("teachers", {}).items()
    ]
    lines += [f"  {data['goals']}"] if data.get("goals") else []
    lines += _listed("guard:", data.get("guard", []))
    for attempt in data.get("attempts", [data]):
        lines += _verdict_lines(attempt)
    if data.get("scores"):
        lines += _listed("scores:", [f"{name} {number(mean)}" for name, mean in data["scores"].items()])
    return lines


def _verdict_lines(attempt: dict[str, Any]) -> list[str]:
    if attempt["lost"] is None:
        return []
    name = f"verdict on {attempt['id']}" if "id" in attempt else "verdict"
    lost = f"lost {', '.join(attempt['lost'])}" if attempt["lost"] else "nothing is lost"
    shown = attempt["lost"] or attempt["reasons"]
    return _listed(f"{name}: {lost}", [f"{key}: {attempt['reasons'][key]}" for key in shown])


def _benchmark_lines(data: dict[str, Any]) -> list[str]:
    width = max([len(score["checkpoint"]) for score in data["scores"]], default=0)
    lines = [f"{data['benchmark']} ({data['domain']})"]
    lines += [f"  {score['checkpoint']:<{width}}  {_score_words(score)}" for score in data["scores"]]
    return [*lines, *_listed("guard:", data["guard"])]


def _score_words(score: dict[str, Any]) -> str:
    words = [f"avg@{score['samples']} {score['mean']:.3f}"]
    if score["interval"]:
        words.append("[{:.3f}, {:.3f}]".format(*score["interval"]))
    if score["samples"] > 1 and (passed := score["pass_at"].get(str(score["samples"]))) is not None:
        words.append(f"pass@{score['samples']} {passed:.3f}")
    if score["greedy"] is not None:
        words.append(f"greedy {score['greedy']:.3f}")
    if score["switch_obeyed"] is not None:
        words.append(f"thinks as asked {score['switch_obeyed']:.3f}")
    elif score["thought"] is not None:
        words.append(f"thinks {score['thought']:.3f}")
    if score["errors"]:
        words.append(wording.count(score["errors"], "grading error"))
    notes = [(score["mark"] or "").replace("_", " "), "" if score["accepted"] else "not accepted"]
    notes.append("goal" if score["goal"] else "")
    return "  ".join([*words, ", ".join(note for note in notes if note)]).rstrip()


def _listed(head: str, items: Sequence[str]) -> list[str]:
    return [f"  {head}", *(f"    - {item}" for item in items)] if items else []
