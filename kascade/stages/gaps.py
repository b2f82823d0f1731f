"""Where a teacher leads: MOPD leaves out domains in which there is nothing to learn. [C2 §4.4]

[C2] Nemotron-Cascade 2 (arXiv 2603.19220) chooses teachers on validation; so does this.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from transformers import PreTrainedModel

from kascade.environments import domain_of
from kascade.exams.draws import sit_exam
from kascade.learning.group import POLICY, GroupModel, Scored
from kascade.models.adapters import plain_weights
from kascade.models.load import load_model
from kascade.models.resting import on_device
from kascade.recipe.schema import Mix, ModelPart, MOPDStage
from kascade.rollout.answers import sampling_params
from kascade.rollout.policy import Policy
from kascade.rollout.pools import source_tasks
from kascade.stages.training import Training
from kascade.storage.files import read_json, write_json
from kascade.task import Domain, Task

log = logging.getLogger(__name__)


def leading_domains(training: Training[MOPDStage]) -> tuple[Mix, ...]:
    """The stage's data without the domains whose teacher leads by less than `min_teacher_gap`.

    The policy must hold the stage's start. Measured once: an interrupted stage finds the numbers beside its
    curves. Empty when no teacher leads anywhere.
    """
    part = training.stage
    if part.min_teacher_gap == 0:
        return part.data
    path = training.folder.teacher_gaps if training.folder else None
    if path is not None and path.exists():
        gaps = read_json(path)
    else:
        gaps = {domain: teacher_gap(training, domain) for domain in training.teachers}
        if path is not None:
            write_json(path, gaps)
    log.info("teachers lead by %s", ", ".join(f"{domain} {gap:+.3f}" for domain, gap in gaps.items()))
    return tuple(mix for mix in part.data if gaps[domain_of(mix.source)] >= part.min_teacher_gap)


def teacher_gap(training: Training[MOPDStage], domain: Domain) -> float:
    """Mean reward of the domain's teacher less the student's, on the validation split of the domain's data.

    0 without an exam where both have the same weights, as when the stage's start is its own best teacher.
    """
    policy, part, teacher = training.policy, training.stage, training.teachers[domain]
    count, seed = part.validation_tasks, training.seed
    if same_weights(teacher, policy):
        return 0.0
    model = _here(teacher, policy)
    tasks = [
        task
        for mix in part.data
        if domain_of(mix.source) == domain
        for task in source_tasks(mix.source, split="validation", seed=seed, count=count)
    ]
    with on_device(model):
        rows = policy.rollout.model_copy(update={"engine": "native"})
        taught = mean_reward(Policy.around(model, policy.tokenizer, policy.chat, rows), tasks, training)
    return taught - mean_reward(policy, tasks, training)


def _here(teacher: Scored, policy: Policy) -> PreTrainedModel:
    """The teacher as a model that samples: one that a group holds is loaded for this, and must fit here."""
    if not isinstance(teacher, GroupModel):
        return teacher
    part = policy.part or ModelPart(source=str(teacher.folder))
    return load_model(teacher.folder, precision=part.precision, low_precision=part.low_precision)


def same_weights(teacher: Scored, policy: Policy) -> bool:
    """Whether two models of one architecture compute alike, adapters merged."""
    if isinstance(teacher, GroupModel):
        return teacher.group.checksum_of(teacher.name) == teacher.group.checksum_of(POLICY)
    pairs = zip(plain_weights(teacher), plain_weights(policy.model), strict=True)
    return all(torch.equal(a, b.to(a.device)) for (_, a), (_, b) in pairs)


def mean_reward(policy: Policy, tasks: list[Task], training: Training[MOPDStage]) -> float:
    """Of the policy's answers as the stage samples them; NaN when none could be graded."""
    groups = sit_exam(
        policy,
        tasks,
        sampling_params(training.stage.sampling),
        num_samples=training.stage.validation_samples,
        seed=training.draw_seed("validation"),
        clock=training.clock,
    )
    rewards = [grade.reward for group in groups for grade in group.grades if grade.error is None]
    return float(np.mean(rewards)) if rewards else float("nan")
