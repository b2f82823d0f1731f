"""What a recipe is going to do, before it does it; and what a run would do again after a change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from kascade.recipe.checks import BASE
from kascade.recipe.fits import MemoryPlan, plan_memory
from kascade.recipe.forecast import Forecast, forecast
from kascade.recipe.measured import Measurement
from kascade.recipe.methods import Stage, stage_title
from kascade.recipe.order import parent_of, teachers_of
from kascade.recipe.redone import changed_stages
from kascade.recipe.schema import Recipe


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


class Plan(_Planned):
    """The whole plan. `redo`: stages that a given run would train again, with reasons; None without a run.

    memory: of every group of processes on the recipe's hardware; None where it names none.
    """

    recipe: str
    model: str
    stages: tuple[PlannedStage, ...]
    edges: tuple[Edge, ...]
    exams: tuple[PlannedExam, ...]
    answers_per_checkpoint: int
    worst_case: WorstCase
    forecast: Forecast
    redo: dict[str, tuple[str, ...]] | None = None
    memory: MemoryPlan | None = None


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A run that was measured, and its recipe."""

    recipe: Recipe
    measurement: Measurement


def make_plan(recipe: Recipe, earlier: EarlierRun | None = None, others: Sequence[Measurement] = ()) -> Plan:
    """The plan of `recipe`; with an earlier run, also what changes. others: own runs to measure by, too."""
    known = [*([earlier.measurement] if earlier else []), *others]
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
        forecast=forecast(recipe, known),
        redo=changed_stages(earlier.recipe, recipe) if earlier else None,
        memory=plan_memory(recipe),
    )


def _planned(recipe: Recipe, stage: Stage) -> PlannedStage:
    return PlannedStage(
        name=stage.name,
        title=stage_title(stage),
        kind=stage.kind,
        parent=parent_of(recipe, stage.name) or BASE,
        side_branch=stage.side_branch,
        steps=stage.steps,
        samples_per_step=stage.samples_per_step,
        tokens_per_step=stage.most_tokens_per_step,
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
    return sum(one.tasks * one.drawn(one.samples or screen) for one in recipe.benchmarks)


def _worst_case(recipe: Recipe) -> WorstCase:
    guard, stages = recipe.guard, len(recipe.stages)
    recoveries = stages * guard.recovery.rounds
    tasks = sum(one.tasks for one in recipe.benchmarks if not one.is_fixed)
    confirming = 2 * tasks * guard.confirm_samples  # both checkpoints, every benchmark suspicious
    verdicts = stages + recoveries
    steps = recoveries * guard.recovery.steps
    rollouts = guard.recovery.prompts_per_step * guard.recovery.rollouts_per_prompt
    answers = (verdicts + 1) * _screen_answers(recipe) + verdicts * confirming
    return WorstCase(recoveries=recoveries, steps=steps, samples=steps * rollouts, exam_answers=answers)
