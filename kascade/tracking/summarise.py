"""From a run folder to its `RunSummary`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kascade.errors import KascadeError
from kascade.guard.lineage import Outcome
from kascade.guard.scores import Score
from kascade.guard.stats import compare
from kascade.recipe.identity import parent_of
from kascade.recipe.schema import Recipe, Stage
from kascade.recipe.titles import stage_title
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.layout import RunLayout
from kascade.tracking.reading import RunReader
from kascade.tracking.summary import (
    Attempt,
    Change,
    Failure,
    Point,
    RunStatus,
    RunSummary,
    StageSummary,
    StepCost,
)

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s\"']+@")


def summarise(run: Path) -> RunSummary:
    """All that a run folder says. A missing or broken piece is listed in `problems`, never an error."""
    reader = RunReader(RunLayout(run.resolve()))
    recipe = reader.recipe()
    attempts = _attempts(reader)
    bases = [attempt for attempt in attempts.values() if attempt.manifest.parent is None]
    stages = _stages(recipe, attempts, bases[-1] if bases else None, reader.outcomes()) if recipe else ()
    base = stages[0].parent if stages and stages[0].parent else bases[-1] if bases else None
    used = {attempt.digest for stage in stages for attempt in stage.attempts}
    final = next((s.accepted for s in reversed(stages) if s.accepted and not s.part.side_branch), base)
    failure = _failure(reader)
    benchmarks = _benchmarks(recipe, attempts.values())
    answers = {
        (attempt.digest, name): kept
        for attempt in attempts.values()
        for name in benchmarks
        if (kept := reader.answers(attempt.digest, name))
    }
    changes, costs = _changes(base, final, benchmarks, reader.problems), _costs(reader)
    recipe_text, resolved_text = (
        reader.text(p) for p in (reader.layout.recipe, reader.layout.resolved_recipe)
    )
    return RunSummary(
        name=recipe.name if recipe else reader.layout.root.name,
        recipe=recipe,
        recipe_text=_redacted(recipe_text),
        resolved_text=_redacted(resolved_text),
        status=_status(stages, failure),
        failure=failure,
        base=base,
        stages=stages,
        final=final,
        others=tuple(a for a in attempts.values() if a.digest not in used and a is not base),
        benchmarks=tuple(benchmarks),
        domains=benchmarks,
        changes=changes,
        costs=costs,
        answers=answers,
        problems=tuple(dict.fromkeys(reader.problems)),
    )


def _redacted(text: str | None) -> str | None:
    """Without the user and password that an address may carry."""
    return None if text is None else _CREDENTIALS.sub("…@", text)


def _attempts(reader: RunReader) -> dict[str, Attempt]:
    """Every checkpoint by digest, oldest first."""
    scores: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for score in reader.scores():
        scores[score.checkpoint][score.benchmark].append(score)
    verdicts = reader.verdicts()
    return {
        ref.digest: Attempt(
            ref=ref,
            manifest=manifest,
            points={name: _point(found) for name, found in sorted(scores[ref.digest].items())},
            verdict=verdicts.get(manifest.id),
            curve=reader.curve(manifest.id),
        )
        for ref, manifest in reader.checkpoints()
    }


def _point(scores: Sequence[Score]) -> Point:
    """One point from all scores of a benchmark on a checkpoint: the confirming ones where there are any."""
    shown = [score for score in scores if score.phase == "confirm"] or list(scores)
    rewards: dict[str, list[float | None]] = {}
    for score in shown:
        for task, drawn in score.rewards.items():
            rewards.setdefault(task, []).extend(drawn)
    greedy = next((score.greedy for score in scores if score.greedy), {})
    pooled = shown[0].model_copy(
        update={
            "rewards": rewards,
            "greedy": greedy,
            "mean_response_tokens": sum(score.mean_response_tokens for score in shown) / len(shown),
            "num_truncated": sum(score.num_truncated for score in shown),
        }
    )
    interval = pooled.interval() if len(pooled.task_means()) > 1 else None
    return Point(pooled, pooled.mean, interval, pooled.greedy_mean)


def _stages(
    recipe: Recipe, attempts: Mapping[str, Attempt], base: Attempt | None, outcomes: Sequence[Outcome]
) -> tuple[StageSummary, ...]:
    """Each stage of the recipe with what belongs to it: only results that start from its accepted parent.

    A folder may hold results of earlier recipes as well; those that start elsewhere are left aside.
    """
    done: dict[str | None, StageSummary] = {}
    for number, part in enumerate(recipe.stages, 1):
        above = parent_of(recipe, part.name)
        parent = base if above is None else done[above].accepted
        done[part.name] = _stage(number, part, parent, attempts, outcomes)
    return tuple(done.values())


def _stage(
    number: int,
    part: Stage,
    parent: Attempt | None,
    attempts: Mapping[str, Attempt],
    outcomes: Sequence[Outcome],
) -> StageSummary:
    settled = [
        outcome
        for outcome in outcomes
        if parent and outcome.stage == part.name and _digest(outcome.parent) == parent.digest
    ]
    outcome = settled[-1] if settled else None
    last = attempts.get(_digest(outcome.candidate) or "") if outcome else _newest(part, parent, attempts)
    accepted = attempts.get(_digest(outcome.accepted) or "") if outcome else None
    tried = _tried(part, last, parent, attempts)
    return StageSummary(number, part, stage_title(part), parent, tried, outcome, accepted)


def _digest(reference: str | None) -> str | None:
    try:
        return CheckpointRef.parse(reference).digest if reference else None
    except KascadeError:
        return None


def _parent(attempt: Attempt, attempts: Mapping[str, Attempt]) -> Attempt | None:
    return attempts.get(_digest(attempt.manifest.parent) or "")


def _newest(part: Stage, parent: Attempt | None, attempts: Mapping[str, Attempt]) -> Attempt | None:
    """The last attempt of a stage that is not settled yet."""
    own = [a for a in attempts.values() if a.manifest.stage == part.name and parent]
    return next((a for a in reversed(own) if _tried(part, a, parent, attempts)), None)


def _tried(
    part: Stage, last: Attempt | None, parent: Attempt | None, attempts: Mapping[str, Attempt]
) -> tuple[Attempt, ...]:
    """The attempts from the stage's parent (left out) to `last`, in order; () when not one line."""
    found: list[Attempt] = []
    while last is not None and last.manifest.stage == part.name:
        found.append(last)
        last = _parent(last, attempts)
    return tuple(reversed(found)) if last is not None and last is parent else ()


def _benchmarks(recipe: Recipe | None, attempts: Iterable[Attempt]) -> dict[str, str]:
    """Domain by benchmark: in the recipe's order, then those only scores know of."""
    scored = {name: point.score.domain for attempt in attempts for name, point in attempt.points.items()}
    named = [benchmark.name for benchmark in recipe.benchmarks] if recipe else []
    return {name: str(scored.get(name, "not scored yet")) for name in dict.fromkeys([*named, *scored])}


def _changes(
    base: Attempt | None, final: Attempt | None, benchmarks: Iterable[str], problems: list[str]
) -> tuple[Change, ...]:
    if base is None or final is None or final is base:
        return ()
    changes = []
    for name in benchmarks:
        before, after = base.points.get(name), final.points.get(name)
        if before is None or after is None:
            continue
        try:
            found = compare(before.score, after.score)
        except KascadeError as error:
            problems.append(str(error))
            continue
        if found is not None:
            changes.append(Change(name, before, after, found.difference, *found.interval))
    return tuple(changes)


def _costs(reader: RunReader) -> tuple[StepCost, ...]:
    found = []
    for step, cost in reader.json_files("costs", "*.json").items():
        numbers = {key: float(value) for key, value in cost.items() if isinstance(value, int | float)}
        wall_s, cpu_s = numbers.pop("wall_s", 0.0), numbers.pop("cpu_s", 0.0)
        memory = numbers.pop("peak_memory_bytes", 0.0)
        sections = {key.removesuffix("_s"): value for key, value in numbers.items() if key.endswith("_s")}
        found.append((_modified(reader, "costs", step), StepCost(step, wall_s, cpu_s, sections, memory)))
    return tuple(cost for _, cost in sorted(found, key=lambda pair: (pair[0], pair[1].step)))


def _modified(reader: RunReader, folder: str, step: str, suffix: str = ".json") -> float:
    return (reader.layout.root / folder / f"{step}{suffix}").stat().st_mtime


def _failure(reader: RunReader) -> Failure | None:
    """The newest error of a step, unless a step finished after it (the run was taken up again)."""
    errors = reader.json_files("logs", "*.error.json")
    if not errors:
        return None
    step = max(errors, key=lambda name: _modified(reader, "logs", name, ".error.json"))
    finished = [_modified(reader, "costs", name) for name in reader.json_files("costs", "*.json")]
    if finished and max(finished) > _modified(reader, "logs", step, ".error.json"):
        return None
    message = _redacted(str(errors[step].get("message", "no message"))) or ""
    return Failure(step, str(errors[step].get("type", "error")), message)


def _status(stages: Sequence[StageSummary], failure: Failure | None) -> RunStatus:
    decisions = [stage.outcome.decision for stage in stages if stage.outcome]
    if "stopped" in decisions:
        return "stopped"
    if stages and len(decisions) == len(stages):
        return "complete"
    return "failed" if failure else "unfinished"
