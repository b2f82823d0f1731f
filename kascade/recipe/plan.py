"""What a recipe is going to do, before it does it; and what a run would do again after a change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kascade.errors import Fault, UserError
from kascade.recipe.checks import BASE
from kascade.recipe.identity import changed_stages, parent_of, teachers_of
from kascade.recipe.schema import Recipe, RLHFStage, RLStage, SFTStage, Stage
from kascade.recipe.titles import stage_title
from kascade.storage.files import read_json
from kascade.storage.layout import RunLayout


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


def make_plan(recipe: Recipe, run: Path | None = None) -> Plan:
    """The plan of `recipe`; with the folder of an earlier run, also what changes and what it may cost.

    Raises UserError when `run` is not the folder of a run.
    """
    earlier = read_run_recipe(run) if run else None
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
        estimate=_estimate(recipe, run, earlier),
        redo=changed_stages(earlier, recipe) if earlier else None,
    )


def read_run_recipe(run: Path) -> Recipe:
    """The completed recipe that a run folder was last started with. Raises UserError."""
    path = RunLayout(run).resolved_recipe
    if not path.is_file():
        remedy = "give the folder that `kascade run` wrote"
        raise UserError(Fault(str(run), f"is not the folder of a run: no {path.name}", remedy=remedy))
    try:
        return Recipe.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
    except ValueError as error:
        remedy = "start a new run in another folder"
        raise UserError(
            Fault(str(path), f"is not a recipe of this version: {error}", remedy=remedy)
        ) from error


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
    return sum(benchmark.tasks for benchmark in recipe.benchmarks) * recipe.guard.screen_samples


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


def _estimate(recipe: Recipe, run: Path | None, earlier: Recipe | None) -> Estimate:
    if run is None or earlier is None:
        return _nothing("no measurements yet: name a finished run of the same model with --run")
    if earlier.model.source != recipe.model.source:
        return _nothing(f"no measurements: {run} trained another model, {earlier.model.source}")
    main, recovery = _measured(run, earlier)
    unmeasured = [stage.name for stage in recipe.stages if stage.name not in main]
    if unmeasured:
        return _nothing(f"no measurements in {run} of {', '.join(unmeasured)}")
    low = main[BASE] + sum(main[s.name] * _work_ratio(earlier, recipe, s) for s in recipe.stages)
    rounds = [seconds for per_round in recovery.values() for seconds in per_round]
    worst = len(recipe.stages) * recipe.guard.recovery.rounds
    return Estimate(
        low=low,
        expected=low + sum(rounds),
        high=low + worst * max(rounds) if rounds else None,
        basis=f"CPU seconds of {run}, {len(rounds)} recoveries among them; a changed stage by its samples",
    )


def _nothing(basis: str) -> Estimate:
    return Estimate(low=None, expected=None, high=None, basis=basis)


def _work_ratio(old: Recipe, new: Recipe, stage: Stage) -> float:
    before = next(other for other in old.stages if other.name == stage.name)
    return stage.steps * samples_per_step(stage) / (before.steps * samples_per_step(before))


def _measured(run: Path, recipe: Recipe) -> tuple[Mapping[str, float], Mapping[str, list[float]]]:
    """CPU seconds of each stage's own steps, and of each of its recovery rounds, from `costs/`."""
    names = sorted((BASE, *(stage.name for stage in recipe.stages)), key=len, reverse=True)
    main: dict[str, float] = defaultdict(float)
    rounds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    folder = RunLayout(run).root / "costs"
    for path in sorted(folder.rglob("*.json")):
        step = path.relative_to(folder).with_suffix("").as_posix()
        stage = next((name for name in names if step.startswith(name)), BASE)
        seconds = float(read_json(path)["cpu_s"])
        number = next((n for n in ("1", "2") if f"recover-{n}" in step), None)
        if number is None:
            main[stage] += seconds
        else:
            rounds[stage][number] += seconds
    return main, {stage: list(found.values()) for stage, found in rounds.items()}
