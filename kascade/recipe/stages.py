"""What a user may write about each stage. Sources: [C2] Nemotron-Cascade 2 (arXiv 2603.19220), [C1]
Nemotron-Cascade (arXiv 2512.13607), [N3] Nemotron 3 Nano (arXiv 2512.20848).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from kascade.recipe.adapter import Adapter
from kascade.recipe.checks import CrossCheckError, Problem
from kascade.recipe.model_parts import MTP, MoE
from kascade.recipe.parallel import Activations, FrozenWeights, Parallel, parallel_problems
from kascade.recipe.parts import Mix, Name, Optimizer, Part, Share, TrainingLimits, check_warmup
from kascade.recipe.rules import (
    GRPO,
    Curriculum,
    ImportanceRange,
    Pairwise,
    PreferenceJudge,
    check_usable_groups,
)
from kascade.recipe.sampling import Sampling
from kascade.recipe.workers import Workers
from kascade.task import Domain


class StagePart(Part):
    """What every stage has, and what the plan, the guard and the report ask of it.

    A method's part overrides the functions that do not hold for it.
    """

    kind: str
    name: Name = Field(description="its name in reports, folders, and other stages' `parent` and `teachers`")
    title: str | None = Field(None, description="as a person reads it; None: derived from the kind")
    parent: Name | None = Field(
        None, description="stage whose accepted checkpoint to start from; None: the previous main-line stage"
    )
    side_branch: bool = Field(False, description="train it, but let the main line go on from before it")
    goals: tuple[Name, ...] | None = Field(
        None, description="benchmarks that must rise; None: those of the stage's domains"
    )
    optimizer: Optimizer = Field(Optimizer(), description="how weights are updated")
    limits: TrainingLimits = Field(TrainingLimits(), description="values at which training stops")
    moe: MoE | None = Field(None, description="experts; None: trained like all other weights")
    mtp: MTP | None = Field(None, description="multi-token-prediction head; None: kept as it is")
    adapter: Adapter | None = Field(
        None, description="LoRA; None: the recipe's, else all weights are trained"
    )
    steps: PositiveInt = Field(description="updates of the weights")
    data: tuple[Mix, ...] = Field(min_length=1, description="sources, with their shares of each batch")
    micro_batch_tokens: PositiveInt = Field(8192, description="padded tokens of one forward and backward")
    save_every: PositiveInt = Field(10, description="steps between training states kept for resume")
    keep_states: PositiveInt = Field(2, description="training states kept: one may be damaged")
    parallel: Parallel = Field(Parallel(), description="how the processes that train share the weights")
    activations: Activations = Field(
        "keep",
        description="of a forward, until its backward. recompute: only each layer's input is kept; offload: "
        "and that in the host's memory",
    )
    frozen_weights: FrozenWeights = Field(
        "device",
        description="where teachers and the reference lie. host: in the machine's memory; they come to the "
        "device to score, which takes time instead of memory",
    )

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> StagePart:
        check_warmup(self.optimizer, self.steps)
        return self

    @model_validator(mode="after")
    def _asks_for_what_it_has(self) -> StagePart:
        if self.answers_by() is None and (found := list(_needs_own_answers(self))):
            raise CrossCheckError(found)
        return self

    @property
    def samples_per_step(self) -> int:
        """Sequences that an update learns from."""
        raise NotImplementedError

    @property
    def most_tokens_per_step(self) -> int:
        """Tokens of them, at most."""
        raise NotImplementedError

    @property
    def batch_words(self) -> str:
        """What an update learns from, in words: "64 demonstrations"."""
        raise NotImplementedError

    def answers_by(self) -> Sampling | None:
        """How the stage samples its own answers; None: it learns from given ones."""
        return None

    def longest_given(self) -> int | None:
        """Tokens of the longest sequence taken from rows; None: the stage samples its own answers."""
        return None

    def actors(self) -> Workers:
        """Who trains and who samples."""
        return Workers()

    def copies_that_score(self) -> tuple[int, int]:
        """Models beside the policy that score for it: references (its start), and judges made from it."""
        return 0, 0

    def whole_distributions(self) -> bool:
        """Whether it learns from the probabilities of all tokens, not of those in its sequences alone."""
        return False

    def teacher_names(self) -> Mapping[Domain, str] | None:
        """Stage that teaches a domain, where one is named ("best" leaves it open); None: nobody teaches."""
        return None


def _needs_own_answers(stage: StagePart) -> Iterator[Problem]:
    """What a stage that learns from given answers asks for, and only one that samples its own has."""
    for name in ("max_response_tokens", "min_response_tokens", "max_truncated"):
        if getattr(stage.limits, name) is not None:
            what = "the stage learns from given answers, and this is a limit of those that it samples"
            yield Problem(("limits", name), what, allowed="null", remedy="leave it out")
    if stage.moe is not None and stage.moe.routing_replay:
        what = "the stage learns from given answers, for which no sampler's experts are known"
        yield Problem(("moe", "routing_replay"), what, allowed="false", remedy="leave it out")


class SFTStage(StagePart):
    """Supervised fine-tuning. [C2 §3, T7]"""

    kind: Literal["sft"] = Field(description="supervised fine-tuning")
    batch_size: PositiveInt = Field(64, description="demonstrations per update")
    max_tokens: PositiveInt = Field(
        262_144, description="longest sequence; longer ones are left out and counted"
    )
    loss: Literal["per_token", "per_sample"] = Field(
        "per_token", description="Nemotron 3 Super §SFT stage 1 / 2"
    )
    noise: Share = Field(0.0, description="share of demonstrations replaced by a wrong one (miniature only)")

    @property
    def samples_per_step(self) -> int:
        return self.batch_size

    @property
    def most_tokens_per_step(self) -> int:
        return self.batch_size * self.max_tokens

    @property
    def batch_words(self) -> str:
        return f"{self.batch_size} demonstrations"

    def longest_given(self) -> int:
        return self.max_tokens


def check_corrections(grpo: GRPO, workers: Workers) -> None:
    if workers.asynchronous and grpo.correction is not None:
        what = "batches of asynchronous workers are corrected as workers.correction says, and by nothing else"
        also = (("workers", "asynchronous"),)
        problem = Problem(("grpo", "correction"), what, "null", "set workers.correction instead", also)
        raise CrossCheckError([problem])


def check_batches_are_new(grpo: GRPO, workers: Workers) -> None:
    if workers.asynchronous and grpo.updates_per_batch > 1:
        what = "asynchronous workers sample for every update, updates_per_batch uses a batch again"
        path = ("grpo", "updates_per_batch")
        raise CrossCheckError([Problem(path, what, allowed="1", also=(("workers", "asynchronous"),))])


class RolloutStage(StagePart):
    """What all stages that learn from their own samples share."""

    prompts_per_step: PositiveInt = Field(128, description="tasks per step [C2 App. B]")
    rollouts_per_prompt: PositiveInt = Field(16, description="answers drawn per task [C2 App. B]")
    sampling: Sampling = Field(Sampling(), description="how answers are drawn")
    workers: Workers = Field(Workers(), description="Ray actors that train and sample")

    @model_validator(mode="after")
    def _processes_match(self) -> RolloutStage:
        problems = parallel_problems(self.parallel, self.workers.trainers)
        found = [replace(p, path=("parallel", *p.path)) for p in problems]
        if self.workers.samplers and self.moe is not None and self.moe.routing_replay:
            what = "the experts are recorded by the trainer's own sampler only"
            also = (("workers", "samplers"),)
            found.append(Problem(("moe", "routing_replay"), what, "false", "set workers.samplers to 0", also))
        if found:
            raise CrossCheckError(found)
        return self

    @property
    def samples_per_step(self) -> int:
        return self.prompts_per_step * self.rollouts_per_prompt

    @property
    def most_tokens_per_step(self) -> int:
        return self.samples_per_step * self.sampling.max_new_tokens

    @property
    def batch_words(self) -> str:
        return f"{self.prompts_per_step} prompts, {self.rollouts_per_prompt} rollouts each"

    def answers_by(self) -> Sampling:
        return self.sampling

    def actors(self) -> Workers:
        return self.workers


class GradedStage(RolloutStage):
    """What all stages that learn from rewards of their own samples share: GRPO."""

    rollouts_per_prompt: int = Field(16, ge=2, description="a group; one rollout has nothing to compare with")
    grpo: GRPO = Field(GRPO(), description="how rewards become updates")

    @property
    def most_tokens_per_step(self) -> int:
        draws = self.grpo.max_generation_batches
        return self.samples_per_step * self.sampling.max_new_tokens * draws

    def copies_that_score(self) -> tuple[int, int]:
        return int(self.grpo.kl_coefficient > 0), 0

    @model_validator(mode="after")
    def _updates_are_possible(self) -> GradedStage:
        check_batches_are_new(self.grpo, self.workers)
        check_corrections(self.grpo, self.workers)
        check_usable_groups(self.grpo, self.prompts_per_step)
        return self


class RLStage(GradedStage):
    """A GRPO stage on graded environments."""

    kind: Literal["if_rl", "multi_domain_rl", "long_context_rl", "code_rl", "swe_rl"] = Field(
        description="GRPO on graded tasks; the kinds differ in their title only"
    )
    curriculum: Curriculum | None = Field(None, description="tasks by pass rate; None: in random order")


class MOPDStage(RolloutStage):
    """Multi-domain on-policy distillation. [C2 §4.4]"""

    kind: Literal["mopd"] = Field(
        description="distillation from several teachers on the student's own answers"
    )
    rollouts_per_prompt: PositiveInt = Field(4, description="answers drawn per task [C2 App. B]")
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
    importance: ImportanceRange = Field(ImportanceRange(), description="tokens that count")

    def teacher_names(self) -> Mapping[Domain, str]:
        return self.teachers

    def whole_distributions(self) -> bool:
        return self.full_vocabulary


class PreferenceGRPO(GRPO):
    """GRPO kept near the stage's start. [C2 §4.5.3]"""

    kl_coefficient: float = Field(0.03, ge=0, description="of the KL to the checkpoint the stage starts from")

    @model_validator(mode="after")
    def _penalties_are_absolute(self) -> PreferenceGRPO:
        if self.obey_switch:
            what = "rewards of comparisons are relative, so 0 is no penalty"
            remedy = "use it in a stage whose answers are graded one by one"
            raise CrossCheckError([Problem(("obey_switch",), what, "false", remedy)])
        return self


class RLHFStage(GradedStage):
    """RLHF by pairwise comparison with a KL to the stage's start. [C2 §4.5; N3 §3.3]"""

    kind: Literal["rlhf"] = Field(description="learning from comparisons of answers")
    rollouts_per_prompt: int = Field(16, ge=2, description="answers compared with each other, pair by pair")
    judge: PreferenceJudge = Field(PreferenceJudge(), description="who compares")
    pairwise: Pairwise = Field(Pairwise(), description="how comparisons become rewards")
    grpo: PreferenceGRPO = Field(PreferenceGRPO(), description="how rewards become updates")

    def copies_that_score(self) -> tuple[int, int]:
        references, _ = super().copies_that_score()
        return references, int(self.judge.kind == "reward_model")
