"""Where a teacher leads: MOPD leaves out domains in which there is nothing to learn. [C2 §4.4]

[C2] Nemotron-Cascade 2 (arXiv 2603.19220) chooses teachers on validation; so does this.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from transformers import PreTrainedModel

from kascade.environments.base import Domain, Task
from kascade.recipe.schema import Mix, MOPDStage
from kascade.rollout.pools import source_tasks
from kascade.stages.exams import sit_exam
from kascade.stages.job import Job, Policy
from kascade.stages.mopd import Teachers
from kascade.stages.rollouts import sampling_params
from kascade.stages.tasks import domain_of
from kascade.storage.files import read_json, write_json

log = logging.getLogger(__name__)


def leading_domains(policy: Policy, teachers: Teachers, part: MOPDStage, job: Job) -> tuple[Mix, ...]:
    """The stage's data without the domains whose teacher leads by less than `min_teacher_gap`.

    The policy must hold the stage's start. Measured once: an interrupted stage finds the numbers beside its
    curves. Empty when no teacher leads anywhere.
    """
    if part.min_teacher_gap == 0:
        return part.data
    path = job.training / "teacher_gaps.json" if job.training else None
    if path is not None and path.exists():
        gaps = read_json(path)
    else:
        gaps = {domain: teacher_gap(policy, model, domain, part, job) for domain, model in teachers.items()}
        if path is not None:
            write_json(path, gaps)
    log.info("teachers lead by %s", ", ".join(f"{domain} {gap:+.3f}" for domain, gap in gaps.items()))
    return tuple(mix for mix in part.data if gaps[domain_of(mix.source)] >= part.min_teacher_gap)


def teacher_gap(policy: Policy, teacher: PreTrainedModel, domain: Domain, part: MOPDStage, job: Job) -> float:
    """Mean reward of the teacher less the student's, on the validation split of the domain's data.

    0 without an exam where both have the same weights, as when the stage's start is its own best teacher.
    """
    if same_weights(teacher, policy.model):
        return 0.0
    taught = Policy.around(teacher, policy.tokenizer, policy.chat)
    tasks = [
        task
        for mix in part.data
        if domain_of(mix.source) == domain
        for task in source_tasks(mix.source, split="validation", seed=job.seed, count=part.validation_tasks)
    ]
    return mean_reward(taught, tasks, part, job) - mean_reward(policy, tasks, part, job)


def same_weights(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b.to(a.device)) for a, b in pairs)


def mean_reward(policy: Policy, tasks: list[Task], part: MOPDStage, job: Job) -> float:
    groups = sit_exam(
        policy,
        tasks,
        sampling_params(part.sampling),
        num_samples=part.validation_samples,
        seed=job.draw_seed("validation"),
        clock=job.clock,
    )
    rewards = [grade.reward for group in groups for grade in group.grades if grade.error is None]
    return float(np.mean(rewards)) if rewards else float("nan")
