"""A stage with a trainer group and a rollout group: the same loop as in one process, other workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from kascade.cluster.ray_rollouts import RayEngine
from kascade.cluster.ray_session import ray_session
from kascade.cluster.ray_trainer import RayTrainer
from kascade.errors import Fault, UserError
from kascade.learning.trainer import Trainer
from kascade.recipe.schema import RolloutStage
from kascade.rollout.engines import make_engine
from kascade.stages.job import Policy, refuse_alone_only, stage_trainer


@contextmanager
def stage_workers(
    policy: Policy,
    part: RolloutStage,
    *,
    started: Callable[[RayEngine | None, RayTrainer | None], None] = lambda engine, trainer: None,
) -> Iterator[tuple[Policy, Trainer]]:
    """The policy whose samples the rollout group draws, and the trainer group; they end with the block.

    Grading stays in this process, which every task passes once, so that none is graded twice or not at all.
    started: told of the groups once they run. Raises UserError for what such a stage cannot do.
    """
    _refuse_what_needs_one_process(part)
    with ray_session(part.workers) as ray:
        engine = trainer = None
        try:
            if part.workers.samplers:
                make = partial(make_engine, tokenizer=policy.tokenizer, chat=policy.chat, part=policy.rollout)
                engine = RayEngine(ray, policy.model, make, part.workers)
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
            yield policy, trainer or stage_trainer(policy, part)
        finally:
            for group in (engine, trainer):
                if group is not None:
                    group.close()


def _refuse_what_needs_one_process(part: RolloutStage) -> None:
    if part.workers.trainers > 1:
        refuse_alone_only(part)
    if part.workers.samplers and part.moe is not None and part.moe.routing_replay:
        what = "is recorded by the trainer's own sampler only"
        remedy = "leave it out, or set workers.samplers to 0"
        raise UserError(Fault(f"stage {part.name!r} moe.routing_replay", what, remedy=remedy))
