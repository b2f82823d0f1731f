"""What a recipe is going to do, before it does it; and what a run would do again after a change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from kascade.recipe.checks import BASE
from kascade.recipe.identity import changed_stages, find_stage, parent_of, teachers_of
from kascade.recipe.schema import Recipe, RLHFStage, RLStage, SFTStage, Stage
from kascade.recipe.titles import stage_title


class _Planned(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlannedStage(_Planned):
    """One stage. `samples_per_step`: rollouts, or demonstrations for SFT; `tokens_per_step`: at most."""

    name: str
    title: str
    kind: str
    parent: str
    side_branch: bool
    steps: int
    samples_per_step: int
    tokens_per_step: int
    environments: tuple[str, ...]
    goals: tuple[str, ...] | None


class Edge(_Planned):
    """A checkpoint that goes from one stage to another: as its start, or as a teacher."""

    source: str
    target: str
    role: str


class PlannedExam(_Planned):
    """One benchmark; every checkpoint sits it."""

    name: str
    environment: str
    tasks: int


class WorstCase(_Planned):
    """If every stage regressed and every recovery were used, over the whole cascade."""

    recoveries: int
    steps: int
    samples: int
    exam_answers: int


class Estimate(_Planned):
    """CPU seconds: without recovery, as measured, and with every recovery; `basis` says what was measured.

    low and expected are None while a stage is unmeasured; high while no recovery is.
    """

    low: float | None
    expected: float | None
    high: float | None
    basis: str


class Plan(_Planned):
    """The whole plan. `redo`: stages that a given run would train again, with reasons; None without a run."""

    recipe: str
    model: str
    stages: tuple[PlannedStage, ...]
    edges: tuple[Edge, ...]
    exams: tuple[PlannedExam, ...]
    answers_per_checkpoint: int
    worst_case: WorstCase
    estimate: Estimate
    redo: dict[str, tuple[str, ...]] | None = None


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A run that was measured: its name, its recipe, and CPU seconds by step ("if_rl.train")."""

    name: str
    recipe: Recipe
    cpu_seconds: Mapping[str, float]


def make_plan(recipe: Recipe, earlier: EarlierRun | None = None) -> Plan:
    """The plan of `recipe`; with an earlier run, also what changes and what it may cost."""
    return Plan(
        recipe=recipe.name,
        model=recipe.model.source,
        stages=tuple(_planned(recipe, stage) for stage in recipe.stages),
        edges=tuple(_edges(recipe)),
        exams=tuple(
            PlannedExam(name=b.name, environment=b.source.environment, tasks=b.tasks)
            for b in recipe.benchmarks
        ),
        answers_per_checkpoint=_screen_answers(recipe),
        worst_case=_worst_case(recipe),
        estimate=_estimate(recipe, earlier),
        redo=changed_stages(earlier.recipe, recipe) if earlier else None,
    )


def samples_per_step(stage: Stage) -> int:
    """Demonstrations of an SFT step, rollouts of any other."""
    if isinstance(stage, SFTStage):
        return stage.batch_size
    return stage.prompts_per_step * stage.rollouts_per_prompt


def _most_tokens(stage: Stage) -> int:
    if isinstance(stage, SFTStage):
        return stage.batch_size * stage.max_tokens
    draws = stage.grpo.max_generation_batches if isinstance(stage, RLStage | RLHFStage) else 1
    return samples_per_step(stage) * stage.sampling.max_new_tokens * draws


def _planned(recipe: Recipe, stage: Stage) -> PlannedStage:
    return PlannedStage(
        name=stage.name,
        title=stage_title(stage),
        kind=stage.kind,
        parent=parent_of(recipe, stage.name) or BASE,
        side_branch=stage.side_branch,
        steps=stage.steps,
        samples_per_step=samples_per_step(stage),
        tokens_per_step=_most_tokens(stage),
        environments=tuple(mix.source.environment for mix in stage.data),
        goals=stage.goals,
    )


def _edges(recipe: Recipe) -> Iterator[Edge]:
    for stage in recipe.stages:
        start = parent_of(recipe, stage.name) or BASE
        yield Edge(source=start, target=stage.name, role="start")
        for teacher in teachers_of(recipe, stage.name):
            yield Edge(source=teacher, target=stage.name, role="teacher")


def _screen_answers(recipe: Recipe) -> int:
    screen = recipe.guard.screen_samples
    return sum(benchmark.tasks * (benchmark.samples or screen) for benchmark in recipe.benchmarks)


def _worst_case(recipe: Recipe) -> WorstCase:
    guard, stages = recipe.guard, len(recipe.stages)
    recoveries = stages * guard.recovery.rounds
    tasks = sum(benchmark.tasks for benchmark in recipe.benchmarks)
    confirming = 2 * tasks * guard.confirm_samples  # both checkpoints, every benchmark suspicious
    verdicts = stages + recoveries
    steps = recoveries * guard.recovery.steps
    rollouts = guard.recovery.prompts_per_step * guard.recovery.rollouts_per_prompt
    answers = (verdicts + 1) * _screen_answers(recipe) + verdicts * confirming
    return WorstCase(recoveries=recoveries, steps=steps, samples=steps * rollouts, exam_answers=answers)


def _estimate(recipe: Recipe, earlier: EarlierRun | None) -> Estimate:
    if earlier is None:
        return _nothing("no measurements yet: name a finished run of the same model with --run")
    if earlier.recipe.model.source != recipe.model.source:
        return _nothing(f"no measurements: {earlier.name} trained {earlier.recipe.model.source}")
    main, rounds = _by_stage(earlier)
    unmeasured = [stage.name for stage in recipe.stages if stage.name not in main]
    if unmeasured:
        return _nothing(f"no measurements in {earlier.name} of {', '.join(unmeasured)}")
    low = main[BASE] + sum(main[s.name] * _work_ratio(earlier.recipe, recipe, s) for s in recipe.stages)
    worst = len(recipe.stages) * recipe.guard.recovery.rounds
    return Estimate(
        low=low,
        expected=low + sum(rounds.values()),
        high=low + worst * max(rounds.values()) if rounds else None,
        basis=f"measured in {earlier.name} with {len(rounds)} recoveries; changed stages by samples",
    )


def _nothing(basis: str) -> Estimate:
    return Estimate(low=None, expected=None, high=None, basis=basis)


def _work_ratio(old: Recipe, new: Recipe, stage: Stage) -> float:
    before = find_stage(old, stage.name)
    return stage.steps * samples_per_step(stage) / (before.steps * samples_per_step(before))


def _by_stage(earlier: EarlierRun) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """CPU seconds of each stage without its recoveries, and of each recovery round with its exams.

    Steps that belong to no stage (preflight, the base's exams, the report) count for the base.
    """
    names = {stage.name for stage in earlier.recipe.stages}
    main: dict[str, float] = defaultdict(float)
    rounds: dict[str, float] = defaultdict(float)
    for step, seconds in earlier.cpu_seconds.items():
        stage, _, rest = step.partition(".")
        attempt = rest.partition(".")[0]
        if stage not in names:
            main[BASE] += seconds
        elif attempt.startswith("recover-"):
            rounds[f"{stage}.{attempt}"] += seconds
        else:
            main[stage] += seconds
    return main, rounds
