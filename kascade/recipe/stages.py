"""What a user may write about each stage. Sources: [C2] Nemotron-Cascade 2 (arXiv 2603.19220), [C1]
Nemotron-Cascade (arXiv 2512.13607), [N3] Nemotron 3 Nano (arXiv 2512.20848).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from kascade.environments.base import Domain
from kascade.recipe.checks import CrossCheckError, Problem
from kascade.recipe.model_parts import MTP, MoE
from kascade.recipe.parts import (
    GRPO,
    Curriculum,
    ImportanceRange,
    Judge,
    Limits,
    Mix,
    Name,
    Optimizer,
    Pairwise,
    Part,
    Sampling,
    Share,
    check_usable_groups,
    check_warmup,
)
from kascade.recipe.workers import Workers


class StagePart(Part):
    """What every stage has."""

    name: Name
    title: str | None = Field(None, description="as a person reads it; None: derived from the kind")
    parent: Name | None = Field(
        None, description="stage whose accepted checkpoint to start from; None: the previous main-line stage"
    )
    side_branch: bool = Field(False, description="train it, but let the main line go on from before it")
    goals: tuple[Name, ...] | None = Field(
        None, description="benchmarks that must rise; None: those of the stage's domains"
    )
    optimizer: Optimizer = Optimizer()
    limits: Limits = Limits()
    moe: MoE | None = Field(None, description="experts; None: trained like all other weights")
    mtp: MTP | None = Field(None, description="multi-token-prediction head; None: kept as it is")
    steps: PositiveInt
    micro_batch_tokens: PositiveInt = Field(8192, description="padded tokens of one forward and backward")
    save_every: PositiveInt = Field(10, description="steps between training states kept for resume")
    keep_states: PositiveInt = Field(2, description="training states kept: one may be damaged")

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> StagePart:
        check_warmup(self.optimizer, self.steps)
        return self


class SFTStage(StagePart):
    """Supervised fine-tuning. [C2 §3, T7]"""

    kind: Literal["sft"]
    data: tuple[Mix, ...] = Field(min_length=1)
    batch_size: PositiveInt = 64
    max_tokens: PositiveInt = Field(
        262_144, description="longest sequence; longer ones are left out and counted"
    )
    loss: Literal["per_token", "per_sample"] = Field(
        "per_token", description="Nemotron 3 Super §SFT stage 1 / 2"
    )
    noise: Share = Field(0.0, description="share of demonstrations replaced by a wrong one (miniature only)")


def check_batches_are_new(grpo: GRPO, workers: Workers) -> None:
    if workers.asynchronous and grpo.updates_per_batch > 1:
        what = "asynchronous workers sample for every update, updates_per_batch uses a batch again"
        raise CrossCheckError([Problem(("grpo", "updates_per_batch"), what, allowed="1")])


class RolloutStage(StagePart):
    """What all stages that learn from their own samples share."""

    data: tuple[Mix, ...] = Field(min_length=1)
    prompts_per_step: PositiveInt = 128
    rollouts_per_prompt: PositiveInt = 16
    sampling: Sampling = Sampling()
    workers: Workers = Field(Workers(), description="Ray actors that train and sample")


class RLStage(RolloutStage):
    """A GRPO stage on graded environments."""

    kind: Literal["if_rl", "multi_domain_rl", "long_context_rl", "code_rl", "swe_rl"]
    rollouts_per_prompt: int = Field(16, ge=2, description="a group; one rollout has nothing to compare with")
    grpo: GRPO = GRPO()
    curriculum: Curriculum | None = Field(None, description="tasks by pass rate; None: in random order")

    @model_validator(mode="after")
    def _updates_are_possible(self) -> RLStage:
        check_batches_are_new(self.grpo, self.workers)
        check_usable_groups(self.grpo, self.prompts_per_step)
        return self


class MOPDStage(RolloutStage):
    """Multi-domain on-policy distillation. [C2 §4.4]"""

    kind: Literal["mopd"]
    rollouts_per_prompt: PositiveInt = 4
    teachers: dict[Domain, Name | Literal["best"]] = Field(
        default_factory=dict,
        description="teacher stage by domain; a domain not named has the best accepted checkpoint",
    )
    min_teacher_gap: float = Field(
        0.0, ge=0, description="leave out domains whose teacher leads by less than this on validation"
    )
    validation_tasks: PositiveInt = Field(100, description="tasks a domain that measure a teacher's lead")
    validation_samples: PositiveInt = Field(4, description="answers to each of them, of student and teacher")
    full_vocabulary: bool = Field(
        False, description="reverse KL over the whole vocabulary, not the sampled token"
    )
    importance: ImportanceRange = ImportanceRange()


class PreferenceGRPO(GRPO):
    """GRPO kept near the stage's start. [C2 §4.5.3]"""

    kl_coefficient: float = Field(0.03, ge=0, description="of the KL to the checkpoint the stage starts from")


class RLHFStage(RolloutStage):
    """RLHF by pairwise comparison with a KL to the stage's start. [C2 §4.5; N3 §3.3]"""

    kind: Literal["rlhf"]
    rollouts_per_prompt: int = Field(16, ge=2, description="answers compared with each other, pair by pair")
    judge: Judge = Judge()
    pairwise: Pairwise = Pairwise()
    grpo: PreferenceGRPO = PreferenceGRPO()

    @model_validator(mode="after")
    def _updates_are_possible(self) -> RLHFStage:
        check_batches_are_new(self.grpo, self.workers)
        check_usable_groups(self.grpo, self.prompts_per_step)
        return self


Stage = Annotated[SFTStage | RLStage | MOPDStage | RLHFStage, Field(discriminator="kind")]
StageKind = Literal["sft", "if_rl", "multi_domain_rl", "mopd", "rlhf", "long_context_rl", "code_rl", "swe_rl"]
