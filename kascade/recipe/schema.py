"""What a user may write. Every number of a loss or a rule is a field here, with its source.

Sources: [C2] Nemotron-Cascade 2 (arXiv 2603.19220), [C1] Nemotron-Cascade (arXiv 2512.13607),
[N3] Nemotron 3 Nano (arXiv 2512.20848).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from kascade.environments.base import Domain
from kascade.recipe.checks import CrossCheckError, Problem, cross_check

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]


class Part(BaseModel):
    """Base of all recipe parts: unknown keys are errors, values do not change after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Optimizer(Part):
    """AdamW with warm-up. Defaults: [C2 App. B]."""

    learning_rate: PositiveFloat = 3e-6
    final_learning_rate: float | None = Field(
        None, ge=0, description="where the schedule ends; None: constant"
    )
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    warmup_start: float = Field(0.0, ge=0, description="learning rate at step 0 of the warm-up")
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(0.1, ge=0)
    max_grad_norm: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _schedule_has_an_end(self) -> Optimizer:
        if (self.schedule == "constant") != (self.final_learning_rate is None):
            what = f"a {self.schedule} schedule goes with final_learning_rate {self.final_learning_rate}"
            remedy = "give both a schedule (linear, cosine) and final_learning_rate, or neither"
            raise CrossCheckError([Problem(("final_learning_rate",), what, remedy=remedy)])
        return self


class Limits(Part):
    """Training stops when one of these is passed; None switches that check off."""

    max_logprob_gap: PositiveFloat | None = Field(
        0.05, description="mean |log p(trainer) - log p(sampler)| over a step's tokens, nats"
    )
    max_dropped_tokens: Share | None = Field(0.2, description="share of tokens outside the importance range")
    min_entropy: float | None = Field(None, description="mean entropy of sampled tokens, nats")
    max_truncated: Share | None = Field(None, description="share of rollouts cut at the length limit")
    max_grader_errors: Share | None = Field(0.1, description="share of grades that are errors")


class DataSource(Part):
    """Where an environment's tasks come from: generated here, or NeMo-Gym rows of a JSONL file."""

    environment: str
    path: str | None = Field(None, description="JSONL of NeMo-Gym rows; None: generated tasks")
    count: PositiveInt | None = Field(2000, description="how many tasks to generate (ignored for a path)")
    levels: tuple[Share, Share] = Field((0.0, 1.0), description="range of difficulty of generated tasks")

    @model_validator(mode="after")
    def _tasks_come_from_somewhere(self) -> DataSource:
        problems = []
        if self.path is None and self.count is None:
            problems.append(Problem(("count",), "neither a path to read nor a count to generate"))
        if self.levels[0] > self.levels[1]:
            problems.append(Problem(("levels",), f"{list(self.levels)} is not a range", "[low, high]"))
        if problems:
            raise CrossCheckError(problems)
        return self


class Mix(Part):
    """One data source with its share of each batch."""

    source: DataSource
    weight: PositiveFloat = 1.0


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
    steps: PositiveInt
    micro_batch_tokens: PositiveInt = Field(8192, description="padded tokens of one forward and backward")
    save_every: PositiveInt = Field(10, description="steps between training states kept for resume")

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> StagePart:
        _check_warmup(self.optimizer, self.steps)
        return self


def _check_warmup(optimizer: Optimizer, steps: int) -> None:
    if optimizer.warmup_steps > steps:
        what = f"the warm-up of {optimizer.warmup_steps} steps is longer than the {steps} steps in all"
        raise CrossCheckError([Problem(("optimizer", "warmup_steps"), what, allowed=f"0 to {steps}")])


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


class Sampling(Part):
    """How rollouts are drawn. [C2 App. B: temperature 1, top-p 1]"""

    temperature: PositiveFloat = 1.0
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: PositiveInt | None = None
    max_new_tokens: PositiveInt = 49_152


class RolloutStage(StagePart):
    """What all stages that learn from their own samples share."""

    data: tuple[Mix, ...] = Field(min_length=1)
    prompts_per_step: PositiveInt = 128
    rollouts_per_prompt: PositiveInt = 16
    sampling: Sampling = Sampling()


class GRPO(Part):
    """Strictly on-policy GRPO without KL, group-normalised, token-level. [C2 §4.1.2 Eq. 1]"""

    baseline: Literal["mean", "leave_one_out"] = "mean"
    normalize_std: bool = True
    kl_coefficient: float = Field(0.0, ge=0, description="0 everywhere but RLHF [C2 §4.1.2]")
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
    drop_below_best: float | None = Field(
        None, description="mask prompts where no rollout has a higher reward than this (SWE: 0.5) [C2 §4.8]"
    )


class RLStage(RolloutStage):
    """A GRPO stage on graded environments."""

    kind: Literal["if_rl", "multi_domain_rl", "long_context_rl", "code_rl", "swe_rl"]
    rollouts_per_prompt: int = Field(16, ge=2, description="a group; one rollout has nothing to compare with")
    grpo: GRPO = GRPO()

    @model_validator(mode="after")
    def _updates_are_possible(self) -> RLStage:
        _check_usable_groups(self.grpo, self.prompts_per_step)
        return self


def _check_usable_groups(grpo: GRPO, prompts_per_step: int) -> None:
    if grpo.min_usable_groups > prompts_per_step:
        what = f"{grpo.min_usable_groups} usable groups can never come from {prompts_per_step} prompts"
        allowed = f"1 to {prompts_per_step}"
        raise CrossCheckError([Problem(("grpo", "min_usable_groups"), what, allowed)])


class ImportanceRange(Part):
    """Tokens whose trainer/sampler ratio lies outside are dropped, not clamped. [C2 §4.4 Eq. 3]"""

    low: PositiveFloat = 0.5
    high: PositiveFloat = 2.0

    @model_validator(mode="after")
    def _keeps_on_policy_tokens(self) -> ImportanceRange:
        if not self.low < 1 < self.high:
            what = f"[{self.low}, {self.high}] does not hold the ratio 1 of on-policy tokens"
            raise CrossCheckError([Problem(("low",), what, allowed="low < 1 < high")])
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


class Judge(Part):
    """Who compares two answers. `rule`: the environment's own preference; `reward_model`: learned here."""

    kind: Literal["rule", "reward_model"] = "rule"
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

    pairs: Literal["all", "circular"] = "all"
    length_coefficient: float = Field(0.5, ge=0, description="lambda of the group-relative length term")
    conciseness_bonus: float = Field(0.5, ge=0, description="beta, for the shortest answer among the best")
    conciseness_percentile: Share = Field(
        0.8, description="only answers with at least this reward percentile"
    )


class RLHFStage(RolloutStage):
    """RLHF by pairwise comparison with a KL to the stage's start. [C2 §4.5; N3 §3.3]"""

    kind: Literal["rlhf"]
    rollouts_per_prompt: int = Field(16, ge=2, description="answers compared with each other, pair by pair")
    judge: Judge = Judge()
    pairwise: Pairwise = Pairwise()
    grpo: GRPO = GRPO(kl_coefficient=0.03)

    @model_validator(mode="after")
    def _updates_are_possible(self) -> RLHFStage:
        _check_usable_groups(self.grpo, self.prompts_per_step)
        return self


Stage = Annotated[SFTStage | RLStage | MOPDStage | RLHFStage, Field(discriminator="kind")]
StageKind = Literal["sft", "if_rl", "multi_domain_rl", "mopd", "rlhf", "long_context_rl", "code_rl", "swe_rl"]


class Benchmark(Part):
    """An environment, a fixed task set and a sampling rule."""

    name: Name
    source: DataSource
    tasks: PositiveInt = Field(200, description="how many tasks of the test split")
    sampling: Sampling = Sampling()
    greedy: bool = Field(False, description="also one greedy answer a task, for the report")


class Recovery(Part):
    """The MOPD branch that answers a regression."""

    rounds: int = Field(2, ge=0, le=2)
    steps: PositiveInt = 40
    optimizer: Optimizer = Optimizer(learning_rate=2e-6, warmup_steps=30, warmup_start=2e-7)
    prompts_per_step: PositiveInt = 128
    rollouts_per_prompt: PositiveInt = 4
    full_vocabulary: bool = False
    importance: ImportanceRange = ImportanceRange()
    keep_weight: PositiveFloat = Field(
        1.0,
        description="prompts of all domains to keep together (the stage's own result teaches them) to each one "
        "of the lost domains together",
    )

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Recovery:
        _check_warmup(self.optimizer, self.steps)
        return self


class Guard(Part):
    """When a fall is a regression, and what then."""

    family_level: float = Field(0.01, gt=0, lt=0.5, description="false alarms allowed over the whole cascade")
    min_drop: float = Field(0.03, ge=0, description="smaller falls are tolerated however certain")
    screen_samples: PositiveInt = Field(2, description="samples a task, every guard benchmark")
    confirm_samples: PositiveInt = Field(16, description="fresh samples a task, suspicious benchmarks only")
    screen_level: float = Field(
        0.1, gt=0, lt=1, description="one-sided p under which a benchmark is suspicious"
    )
    rise_level: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="one-sided p under which a goal benchmark has risen over the stage's start",
    )
    recovery: Recovery = Recovery()
    unrecovered: Literal["continue", "rollback", "stop"] = "continue"


class ModelPart(Part):
    """The model to start from."""

    source: str = Field(description="builtin://NAME, a folder, or a hub id")
    chat_template: Literal["own", "nemotron-cascade-1", "nemotron-cascade-2"] = Field(
        "own", description="own: the tokenizer's"
    )


class Tracking(Part):
    """Where MLflow is. None: a sqlite file in the run's folder (or MLFLOW_TRACKING_URI when set)."""

    uri: str | None = None
    experiment: str = "kascade"


class Recipe(Part):
    """One cascade, completed and checked."""

    kascade: Literal[1] = Field(description="version of this format")
    name: Name
    description: str = ""
    model: ModelPart
    seed: int = Field(0, ge=0, lt=2**32)
    threads: PositiveInt | None = Field(None, description="CPU threads of torch; None: all cores")
    budget_cpu_hours: PositiveFloat | None = Field(
        None, description="stop before a stage that would exceed it"
    )
    stages: tuple[Stage, ...] = Field(min_length=1)
    benchmarks: tuple[Benchmark, ...] = Field(min_length=1)
    guard: Guard = Guard()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _references_exist(self) -> Recipe:
        cross_check(self.model_dump(mode="json"))
        return self
