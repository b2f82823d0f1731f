"""From a run folder to its `RunSummary`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kascade.errors import KascadeError, redact
from kascade.guard.approval import questions, read_waiting
from kascade.guard.comparison import compare
from kascade.guard.end_check import EndVerdict, read_end_verdict
from kascade.guard.lineage import Outcome, own_outcomes
from kascade.guard.own import base_of
from kascade.guard.scores import Score, all_scores
from kascade.guard.verdict import all_verdicts
from kascade.recipe.methods import stage_title
from kascade.recipe.order import parent_of
from kascade.recipe.run_recipe import find_run_recipe
from kascade.recipe.schema import Recipe, Stage
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.run_folder import RunFolder
from kascade.tracking.costs import step_costs
from kascade.tracking.promote import read_promotion
from kascade.tracking.reading import answers_of, curve
from kascade.tracking.retrain import read_reason
from kascade.tracking.summary import (
    AttemptSummary,
    BenchmarkChange,
    Failure,
    Point,
    RunStatus,
    RunSummary,
    StageSummary,
)


def summarise(run: Path) -> RunSummary:
    """All that a run folder says. A missing or broken piece is listed in `problems`, never an error."""
    folder = RunFolder.tolerant(run.resolve())
    problems = folder.problems if folder.problems is not None else []
    recipe = find_run_recipe(folder)
    attempts = _attempts(folder)
    bases = [attempt for attempt in attempts.values() if attempt.manifest.parent is None]
    outcomes = list(own_outcomes(folder, recipe).values())
    known = attempts.get(_digest(base_of(folder, recipe)) or "") if recipe else None
    stages = _stages(recipe, attempts, known or (bases[-1] if bases else None), outcomes) if recipe else ()
    base = stages[0].parent if stages and stages[0].parent else bases[-1] if bases else None
    used = {attempt.digest for stage in stages for attempt in stage.attempts}
    final = next((s.accepted for s in reversed(stages) if s.accepted and not s.part.side_branch), base)
    end_verdict = _end_verdict(folder, final)
    if end_verdict is not None:
        final = attempts.get(_digest(end_verdict.checkpoint) or "", final)
    failure, waiting = _failure(folder), read_waiting(folder)
    benchmarks = _benchmarks(recipe, attempts.values())
    answers = {
        (attempt.digest, name): kept
        for attempt in attempts.values()
        for name in benchmarks
        if (kept := answers_of(folder, attempt.digest, name))
    }
    changes, costs = _changes(base, final, benchmarks, problems), step_costs(folder)
    recipe_text, resolved_text = (folder.load(p, _text) for p in (folder.recipe, folder.resolved_recipe))
    return RunSummary(
        name=recipe.name if recipe else folder.root.name,
        recipe=recipe,
        recipe_text=redact(recipe_text or "") or None,
        resolved_text=redact(resolved_text or "") or None,
        status="waiting" if waiting else _status(stages, failure),
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
        problems=tuple(dict.fromkeys(problems)),
        end_verdict=end_verdict,
        waiting=waiting,
        retrain=read_reason(folder) if recipe and recipe.retrain else None,
        questions=tuple(questions(folder)),
        promotion=read_promotion(folder),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _end_verdict(folder: RunFolder, accepted: AttemptSummary | None) -> EndVerdict | None:
    """The end check of what the last stage ended with, or of the last recovery that replaced it."""
    if accepted is None:
        return None
    final = folder.final_checkpoint()
    recovered = read_end_verdict(folder, final) if final and _digest(final) else None
    if recovered and recovered.recovered_from and _digest(recovered.recovered_from) == accepted.digest:
        return recovered
    return read_end_verdict(folder, str(accepted.ref))


def _attempts(folder: RunFolder) -> dict[str, AttemptSummary]:
    """Every checkpoint by digest, oldest first."""
    scores: dict[str, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    for score in all_scores(folder):
        scores[score.checkpoint][score.benchmark].append(score)
    verdicts = all_verdicts(folder)
    return {
        ref.digest: AttemptSummary(
            ref=ref,
            manifest=manifest,
            points={name: _point(found) for name, found in sorted(scores[ref.digest].items())},
            verdict=verdicts.get(manifest.id),
            curve=curve(folder, manifest.id),
        )
        for ref, manifest in folder.checkpoints()
    }


def _point(scores: Sequence[Score]) -> Point:
    """One point from all scores of a benchmark on a checkpoint: the confirming ones where there are any."""
    stages = [score for score in scores if score.phase in ("screen", "confirm")] or list(scores)
    shown = [score for score in stages if score.phase == "confirm"] or stages
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
            **{name: _mean_share(shown, name) for name in ("switch_obeyed", "thought")},
        }
    )
    interval = pooled.interval() if len(pooled.task_means()) > 1 else None
    return Point(pooled, pooled.mean, interval, pooled.greedy_mean)


def _mean_share(scores: Sequence[Score], name: str) -> float | None:
    """Of a share that all scores of a benchmark have, or none."""
    found = [share for score in scores if (share := getattr(score, name)) is not None]
    return sum(found) / len(found) if found else None


def _stages(
    recipe: Recipe,
    attempts: Mapping[str, AttemptSummary],
    base: AttemptSummary | None,
    outcomes: Sequence[Outcome],
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
    parent: AttemptSummary | None,
    attempts: Mapping[str, AttemptSummary],
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


def _parent(attempt: AttemptSummary, attempts: Mapping[str, AttemptSummary]) -> AttemptSummary | None:
    return attempts.get(_digest(attempt.manifest.parent) or "")


def _newest(
    part: Stage, parent: AttemptSummary | None, attempts: Mapping[str, AttemptSummary]
) -> AttemptSummary | None:
    """The last attempt of a stage that is not settled yet."""
    own = [a for a in attempts.values() if a.manifest.stage == part.name and parent]
    return next((a for a in reversed(own) if _tried(part, a, parent, attempts)), None)


def _tried(
    part: Stage,
    last: AttemptSummary | None,
    parent: AttemptSummary | None,
    attempts: Mapping[str, AttemptSummary],
) -> tuple[AttemptSummary, ...]:
    """The attempts from the stage's parent (left out) to `last`, in order; () when not one line."""
    found: list[AttemptSummary] = []
    while last is not None and last.manifest.stage == part.name:
        found.append(last)
        last = _parent(last, attempts)
    return tuple(reversed(found)) if last is not None and last is parent else ()


def _benchmarks(recipe: Recipe | None, attempts: Iterable[AttemptSummary]) -> dict[str, str]:
    """Domain by benchmark: in the recipe's order, then those only scores know of."""
    scored = {name: point.score.domain for attempt in attempts for name, point in attempt.points.items()}
    named = [benchmark.name for benchmark in recipe.benchmarks] if recipe else []
    return {name: str(scored.get(name, "not scored yet")) for name in dict.fromkeys([*named, *scored])}


def _changes(
    base: AttemptSummary | None, final: AttemptSummary | None, benchmarks: Iterable[str], problems: list[str]
) -> tuple[BenchmarkChange, ...]:
    if base is None or final is None or final is base:
        return ()
    changes = []
    for name in benchmarks:
        before, after = base.points.get(name), final.points.get(name)
        if before is None or after is None:
            continue
        try:
            found = compare(before.score.task_rewards(), after.score.task_rewards())
        except KascadeError as error:
            problems.append(str(error))
            continue
        if found is not None:
            changes.append(BenchmarkChange(name, before, after, found.difference, *found.interval))
    return tuple(changes)


def _failure(folder: RunFolder) -> Failure | None:
    """The newest error of a step, unless a step finished after it (the run was taken up again)."""
    errors = folder.errors()
    if not errors:
        return None
    times = {step: folder.newest([folder.step_error(step)]) for step in errors}
    step = max(times, key=lambda name: times[name])
    if folder.newest(folder.cost_files()) > times[step]:
        return None
    message = redact(str(errors[step].get("message", "no message")))
    return Failure(step, str(errors[step].get("type", "error")), message)


def _status(stages: Sequence[StageSummary], failure: Failure | None) -> RunStatus:
    decisions = [stage.outcome.decision for stage in stages if stage.outcome]
    if "stopped" in decisions:
        return "stopped"
    if stages and len(decisions) == len(stages):
        return "complete"
    return "failed" if failure else "unfinished"
