"""The RL stages on graded environments: GRPO, on tasks in random order or by pass rate."""

from __future__ import annotations

from typing import cast

from kascade.recipe.schema import RLStage
from kascade.rollout.pools import TaskPool
from kascade.stages.curriculum import by_pass_rate
from kascade.stages.grpo import train_grpo
from kascade.stages.training import Training


def train_rl(training: Training[RLStage]) -> None:
    """Train the policy in place on the rewards of the stage's environments.

    Raises UserError when a curriculum leaves no task, TrainingStopped when a limit of the recipe is passed.
    """
    rule = training.stage.curriculum
    if rule is not None:
        training.tasks = by_pass_rate(training, cast(TaskPool, training.tasks), rule)
    train_grpo(training)
