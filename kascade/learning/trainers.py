"""The trainer that a stage asks for."""

from __future__ import annotations

from transformers import PreTrainedModel

from kascade.learning.model_trainer import ModelTrainer
from kascade.learning.trainer import Trainer
from kascade.recipe.schema import StagePart
from kascade.rollout.engines import make_routed_engine
from kascade.rollout.policy import Policy


def stage_trainer(policy: Policy, part: StagePart) -> Trainer:
    """The trainer of a stage's policy, as its part of the recipe says."""
    if part.moe is not None and part.moe.routing_replay and part.answers_by() is not None:
        engine = make_routed_engine(policy.model, policy.tokenizer, policy.chat, policy.rollout)
        policy.use_engine(engine)
    return make_trainer(policy.model, part, policy.pad_id)


def make_trainer(model: PreTrainedModel, part: StagePart, pad_id: int) -> Trainer:
    """The trainer of a model in one process or spread over several."""
    return ModelTrainer(
        model,
        part.optimizer,
        total_steps=part.steps,
        micro_batch_tokens=part.micro_batch_tokens,
        pad_id=pad_id,
        moe=part.moe,
        mtp=part.mtp,
    )
