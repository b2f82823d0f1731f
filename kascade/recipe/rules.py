"""The rules of each way to learn: GRPO, curricula, distillation, preferences.

Every number of a loss or a rule is a field, with its source. Sources: [C2] Nemotron-Cascade 2 (arXiv
2603.19220), [N3] Nemotron 3 Nano (arXiv 2512.20848), [LN] Llama-Nemotron (arXiv 2505.00949), [S3] Nemotron 3
Super (arXiv 2604.12374), [C1] Nemotron-Cascade (arXiv 2512.13607), [DAPO] arXiv 2503.14476, [RL] NeMo-RL.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kascade.recipe.checks import CrossCheckError, Problem
from kascade.recipe.parts import Optimizer, Part, Share


class Clip(Part):
    """PPO's clipping of the ratio to the rollouts' policy, wider above than below. [DAPO §3.1]"""

    low: float = Field(0.2, gt=0, lt=1, description="ratios under 1 - low")
    high: PositiveFloat = Field(0.28, description="ratios over 1 + high")


class Correction(Part):
    """Importance weights trainer / sampler, where rollouts come from older weights or another engine."""

    rule: Literal["icepop", "tis", "sequence_mask"] = Field(
        "icepop",
        description="icepop: a token outside [low, high] is masked, others are weighted [N3 §3.2.5; RL]; "
        "tis: weights are cut to [low, high] [S3; RL]; sequence_mask: a rollout whose geometric mean is "
        "outside is masked [RL: 0.999 to 1.002]",
    )
    low: float = Field(0.5, ge=0, description="[RL: icepop's reference bounds 0.5 and 5]")
    high: PositiveFloat = Field(5.0, description="[RL; S3: tis <= 5]")

    @model_validator(mode="after")
    def _keeps_on_policy_tokens(self) -> Correction:
        if not self.low < 1 < self.high:
            what = f"[{self.low}, {self.high}] does not hold the weight 1 of on-policy tokens"
            raise CrossCheckError([Problem(("low",), what, allowed="low < 1 < high")])
        return self


class GRPO(Part):
    """Strictly on-policy GRPO without KL, group-normalised, token-level. [C2 §4.1.2 Eq. 1]"""

    baseline: Literal["mean", "leave_one_out"] = Field(
        "mean",
        description="what a reward is compared with: the mean of its group [C2 Eq. 1], or of the others",
    )
    normalize_std: bool = Field(True, description="false with `aggregation: constant` is Dr.GRPO")
    aggregation: Literal["token", "sample", "constant"] = Field(
        "token",
        description="token: all tokens of the batch count alike [C2 Eq. 1]; sample: all rollouts do (GRPO, "
        "arXiv 2402.03300); constant: divided by max_new_tokens, whatever the lengths (Dr.GRPO, "
        "arXiv 2503.20783)",
    )
    updates_per_batch: PositiveInt = Field(
        1, description="updates from one batch of rollouts; 1 is strictly on-policy [C2 §4.1.2]"
    )
    clip: Clip = Field(Clip(), description="of ratios, which only later updates of a batch have")
    correction: Correction | None = Field(None, description="None: sampler and trainer agree")
    kl_coefficient: float = Field(
        0.0,
        ge=0,
        description="of the KL to the checkpoint the stage starts from; 0 everywhere but RLHF [C2 §4.1.2]",
    )
    dynamic_filtering: bool = Field(True, description="drop groups whose rewards are all equal [C2 §4.2]")
    max_generation_batches: PositiveInt = Field(
        1, description="how often to draw more prompts when filtering leaves too few groups"
    )
    min_usable_groups: PositiveInt = Field(
        4, description="fewer usable groups than this: skip the update, say so"
    )
    overlong: Literal["keep", "filter", "penalty"] = Field(
        "keep", description="truncated rollouts: filter = masked from the loss, penalty = reward 0 [C2 §4.2]"
    )
    obey_switch: bool = Field(
        False,
        description="reward 0 for an answer that thinks although its source's `mode` is no_think, or does "
        "not although it is think [LN §5.1]",
    )
    drop_below_best: float | None = Field(
        None, description="mask prompts where no rollout has a higher reward than this (SWE: 0.5) [C2 §4.8]"
    )


def check_usable_groups(grpo: GRPO, prompts_per_step: int) -> None:
    if grpo.min_usable_groups > prompts_per_step:
        what = f"{grpo.min_usable_groups} usable groups can never come from {prompts_per_step} prompts"
        allowed = f"1 to {prompts_per_step}"
        remedy = "set grpo.min_usable_groups, too, or draw more prompts"
        path = ("grpo", "min_usable_groups")
        raise CrossCheckError([Problem(path, what, allowed, remedy, also=(("prompts_per_step",),))])


class Curriculum(Part):
    """Which tasks a stage sees when, by how often its start solves them. [N3 §3.2.2; LN §5.1]"""

    samples: PositiveInt = Field(8, description="answers a task that measure its pass rate")
    passed_from: float = Field(1.0, description="reward from which an answer has passed")
    drop_from: float = Field(
        1.0, gt=0, le=1, description="leave out tasks with at least this pass rate [N3: 1; LN: 0.75]"
    )
    unsolved_odds: Share = Field(
        0.25, description="odds of a task that was never solved to take part in a round through the tasks"
    )
    first_mean: Share = Field(0.7, description="mean of the target pass rates in the first step [N3 Fig. 6]")
    last_mean: Share = Field(0.4, description="the same in the last step [N3 Fig. 6]")
    width: PositiveFloat = Field(0.15, description="standard deviation of the target; no source gives one")
    bins: PositiveInt = Field(
        10, description="bins of pass rate, filled by the target, rest from the fullest"
    )


class ImportanceRange(Part):
    """Tokens whose trainer/sampler ratio is outside are dropped, not clamped. [C2 §4.4 Eq. 3]"""

    low: PositiveFloat = Field(0.5, description="smallest ratio that counts [C2 §4.4 Eq. 3]")
    high: PositiveFloat = Field(2.0, description="largest ratio that counts [C2 §4.4 Eq. 3]")

    @model_validator(mode="after")
    def _keeps_on_policy_tokens(self) -> ImportanceRange:
        if not self.low < 1 < self.high:
            what = f"[{self.low}, {self.high}] does not hold the ratio 1 of on-policy tokens"
            raise CrossCheckError([Problem(("low",), what, allowed="low < 1 < high")])
        return self


class PreferenceJudge(Part):
    """Who compares two answers.

    rule: the environment's own preference. reward_model: learned here. genrm: the recipe's `judge`.
    """

    kind: Literal["rule", "reward_model", "genrm"] = Field(
        "rule",
        description="a rule of the environment, a reward model learnt here, or the recipe's language model",
    )
    style: Literal["prompt", "roles"] = Field(
        "prompt", description="how a genrm is asked: in words, or by NeMo-Gym's response_1/response_2 roles"
    )
    principle: str | None = Field(None, description="what a genrm is to prefer, for rows without `principle`")
    votes: PositiveInt = Field(1, description="times each pair is judged, the mean taken")
    min_agreement: Share = Field(0.85, description="held-out agreement under which a reward model is refused")
    pairs: PositiveInt = Field(
        512, description="preference pairs the reward model is trained and measured on"
    )
    holdout: float = Field(0.2, gt=0, lt=1, description="share of the pairs it is measured on")
    epochs: PositiveInt = Field(1, description="[C1 §4.2]")
    batch_size: PositiveInt = Field(256, description="pairs an update [C1 §4.2]")
    optimizer: Optimizer = Field(Optimizer(learning_rate=2e-6), description="[C1 §4.2]")


class Pairwise(Part):
    """Aggregation of pairwise comparisons. [N3 §3.3; C2 §4.5 compares all pairs]"""

    pairs: Literal["all", "circular"] = Field(
        "all",
        description="compare every pair of answers [C2 §4.5], or each with its neighbour only [N3 §3.3]",
    )
    length_coefficient: float = Field(0.5, ge=0, description="lambda of the group-relative length term")
    conciseness_bonus: float = Field(0.5, ge=0, description="beta, for the shortest answer among the best")
    conciseness_percentile: Share = Field(
        0.8, description="only answers with at least this reward percentile"
    )
