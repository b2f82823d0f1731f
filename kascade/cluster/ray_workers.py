"""An RL stage with a trainer group and a rollout group: the same loop as in one process, other workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kascade.cluster.ray_rollouts import RayEngine
from kascade.cluster.ray_session import ray_session
from kascade.cluster.ray_trainer import RayTrainer
from kascade.recipe.schema import RLStage
from kascade.stages.grpo import train_grpo
from kascade.stages.job import Job, Policy, TaskSource, stage_trainer
from kascade.stages.rollouts import Grader, Group, grade_by_environment, rollout_metrics


def train_with_workers(
    policy: Policy,
    tasks: TaskSource,
    part: RLStage,
    job: Job,
    *,
    grader: Grader = grade_by_environment,
    observe: Callable[[Sequence[Group]], dict[str, float]] = rollout_metrics,
    started: Callable[[RayEngine | None, RayTrainer | None], None] = lambda engine, trainer: None,
) -> None:
    """As `train_grpo`. started: told of the groups once they run.

    Grading stays in this process, which every task passes once, so that none is graded twice or not at all.
    """
    with ray_session(part.workers) as ray:
        engine = trainer = None
        try:
            if part.workers.samplers:
                engine = RayEngine(ray, policy.model, tuple(policy.chat.end_ids), part.workers)
                policy = replace(policy, engine=engine)
                policy.sync(policy.version)
            if part.workers.trainers > 1:
                trainer = RayTrainer(
                    ray,
                    part.workers,
                    policy.model,
                    part.optimizer,
                    total_steps=part.steps,
                    micro_batch_tokens=part.micro_batch_tokens,
                    pad_id=policy.pad_id,
                )
            started(engine, trainer)
            train_grpo(
                policy,
                tasks,
                part,
                job,
                grader=grader,
                observe=observe,
                trainer=trainer or stage_trainer(policy, part),
            )
        finally:
            for group in (engine, trainer):
                if group is not None:
                    group.close()
