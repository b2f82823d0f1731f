"""What a recovery race varies and measures. Light: the command line reads its defaults from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Arm = Literal["mopd", "mopd_full", "grpo", "sft"]
ARMS: tuple[Arm, ...] = get_args(Arm)
ARM_WORDS: Mapping[Arm, str] = {
    "mopd": "MOPD, sampled token",
    "mopd_full": "MOPD, full vocabulary",
    "grpo": "GRPO on the tasks' rewards",
    "sft": "SFT replay of reference answers",
}


@dataclass(frozen=True, slots=True)
class RaceSettings:
    """One race. All arms see the same prompts in every step.

    steps: updates of each arm. score_every: updates between two scores.
    validation_tasks, validation_samples: tasks a benchmark, and answers to each, that make a score.
    prompts_per_step, rollouts_per_prompt: None is what the recipe's recovery has; SFT takes one reference
    answer a prompt. keep_weight: prompts of kept domains to each one of the lost domains; 0 is none.
    learning_rates: by arm, in place of the recipe's. recovered_share: share of the loss whose return counts
    as recovered.
    """

    arms: tuple[Arm, ...] = ARMS
    seeds: tuple[int, ...] = (0, 1, 2)
    steps: int = 40
    score_every: int = 5
    validation_tasks: int = 100
    validation_samples: int = 2
    prompts_per_step: int | None = None
    rollouts_per_prompt: int | None = None
    keep_weight: float = 0.0
    learning_rates: Mapping[Arm, float] = field(default_factory=dict)
    recovered_share: float = 0.8
