"""A stage's tasks ordered by how often its start solves them; measured once, kept beside the curves."""

from __future__ import annotations

import logging

import numpy as np

from kascade.data.curriculum import CurriculumPool, summarise
from kascade.errors import Fault, UserError
from kascade.exams.draws import sit_exam
from kascade.recipe.schema import Curriculum, RLStage
from kascade.rollout.answers import sampling_params
from kascade.rollout.pools import TaskPool
from kascade.stages.training import Training
from kascade.storage.files import read_json, write_json
from kascade.task import Task

log = logging.getLogger(__name__)
PROFILED_AT_ONCE = 256  # tasks; what is measured is written after each such part


def by_pass_rate(training: Training[RLStage], pool: TaskPool, rule: Curriculum) -> CurriculumPool:
    """The pool's tasks under the stage's curriculum. The policy must hold the stage's start.

    Raises UserError when a source has nothing left to learn from.
    """
    tasks = {task.id: task for source in pool.sources for task in source}
    rates = pass_rates(training, list(tasks.values()), rule)
    summary = summarise(rates, rule)
    log.info(
        "pass rates: %d tasks always solved (left out), %d never, %d in between; %d could not be graded",
        summary.always, summary.never, summary.between, len(tasks) - len(rates),
    )  # fmt: skip
    part = training.stage
    draws = part.steps * part.grpo.max_generation_batches
    try:
        return CurriculumPool(pool.sources, pool.weights, rates, rule, draws, pool.seed)
    except ValueError as error:
        remedy = "give easier or harder tasks (levels), raise unsolved_odds, or leave the curriculum out"
        raise UserError(Fault(f"stages.{part.name}.curriculum", str(error), remedy=remedy)) from error


def pass_rates(training: Training[RLStage], tasks: list[Task], rule: Curriculum) -> dict[str, float]:
    """Share of each task's answers that pass, by task id; tasks whose answers could not be graded are not in.

    An interrupted stage finds what was measured before it took a step.
    """
    path = training.folder.pass_rates if training.folder else None
    known: dict[str, float | None] = read_json(path) if path is not None and path.exists() else {}
    missing = [task for task in tasks if task.id not in known]
    for start in range(0, len(missing), PROFILED_AT_ONCE):
        groups = sit_exam(
            training.policy,
            missing[start : start + PROFILED_AT_ONCE],
            sampling_params(training.stage.sampling),
            num_samples=rule.samples,
            seed=training.draw_seed("pass rates"),
            clock=training.clock,
        )
        for group in groups:
            graded = group.rewards[group.graded]
            passed = float(np.mean(graded >= rule.passed_from)) if len(graded) else None
            known[group.answered.task.id] = passed
        if path is not None:
            write_json(path, known)
    return {task.id: rate for task in tasks if (rate := known[task.id]) is not None}
