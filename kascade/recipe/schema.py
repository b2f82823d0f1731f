"""The whole recipe: stages, exams, guard, model. `recipe.parts` and `recipe.stages` hold the rest.

Sources: [C2] Nemotron-Cascade 2 (arXiv 2603.19220), [C1] Nemotron-Cascade (arXiv 2512.13607), [LN]
Llama-Nemotron (arXiv 2505.00949).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from kascade.recipe.adapter import Adapter
from kascade.recipe.addresses import store_address, tracking_address
from kascade.recipe.approval import Approval
from kascade.recipe.attest import Attest
from kascade.recipe.bounds import MOST_GENERATED, MOST_PROCESSES, MOST_THREADS
from kascade.recipe.budget import Budget, Prices
from kascade.recipe.checks import CrossCheckError, Problem
from kascade.recipe.cluster import Cluster, Placement
from kascade.recipe.guard import Guard, Recovery, Retention
from kascade.recipe.hardware import Hardware
from kascade.recipe.judge_model import JudgeModel
from kascade.recipe.methods import Stage
from kascade.recipe.model_parts import (
    MTP,
    LongContext,
    LowPrecision,
    MoE,
    PrecisionName,
    ThinkingSwitch,
    Word,
)
from kascade.recipe.notify import Notify
from kascade.recipe.parts import (
    DataSource,
    Filled,
    Mix,
    Name,
    Optimizer,
    Part,
    Share,
    TrainingLimits,
    formed,
)
from kascade.recipe.retrain import Retrain
from kascade.recipe.rules import (
    GRPO,
    Clip,
    Correction,
    Curriculum,
    ImportanceRange,
    Pairwise,
    PreferenceJudge,
)
from kascade.recipe.sampling import ConversationLimits, Rollout, Sampling
from kascade.recipe.stages import (
    GradedStage,
    MOPDStage,
    RLHFStage,
    RLStage,
    RolloutStage,
    SFTStage,
    StagePart,
)
from kascade.recipe.whole import check_whole

__all__ = [
    "GRPO",
    "Adapter",
    "Benchmark",
    "Clip",
    "Correction",
    "ConversationLimits",
    "Cluster",
    "Curriculum",
    "DataSource",
    "GradedStage",
    "Guard",
    "Hardware",
    "ImportanceRange",
    "PreferenceJudge",
    "JudgeModel",
    "TrainingLimits",
    "LongContext",
    "LowPrecision",
    "MOPDStage",
    "MTP",
    "Mix",
    "MoE",
    "ModelPart",
    "Name",
    "Optimizer",
    "Pairwise",
    "Part",
    "PrecisionName",
    "Placement",
    "RLHFStage",
    "RLStage",
    "Recipe",
    "Recovery",
    "Retention",
    "Rollout",
    "RolloutStage",
    "SFTStage",
    "Sampling",
    "Share",
    "Stage",
    "StagePart",
    "Storage",
    "Tracking",
]


class Benchmark(Part):
    """An environment, a fixed task set and a sampling rule.

    A recipe file may name a `preset` and leave out what it says: `recipe.benchmark_presets` fills that in.
    """

    name: Name = Field(description="its name in reports, and in `goals` of stages")
    preset: str | None = Field(None, description="a published benchmark whose protocol fills in the rest")
    source: DataSource = Field(description="where its tasks come from")
    tasks: PositiveInt = Field(200, le=MOST_GENERATED, description="how many tasks of the test split")
    sampling: Sampling = Field(Sampling(), description="how its answers are drawn")
    samples: PositiveInt | None = Field(
        None, description="answers a task in the screen (avg@k); None: guard.screen_samples"
    )
    greedy: bool = Field(False, description="also one greedy answer a task, for the report")
    reward_range: tuple[float, float] = Field(
        (0.0, 1.0),
        description="lowest and highest reward that the environment gives; scores are scaled to 0 to 1",
    )
    keep_every: PositiveInt = Field(
        256, description="tasks whose answers are drawn, graded and kept at a time; a benchmark resumes there"
    )

    @model_validator(mode="after")
    def _rewards_have_a_range(self) -> Benchmark:
        low, high = self.reward_range
        if low >= high:
            what = f"{[low, high]} is not a range from the lowest to the highest reward"
            raise CrossCheckError([Problem(("reward_range",), what, "[low, high]")])
        return self

    @property
    def is_fixed(self) -> bool:
        """Whether a checkpoint's answers are the same however often they are asked for: another tool's
        log-likelihoods and greedy answers."""
        return self.source.of_another_tool and not self.source.options.get("sampled", False)

    def drawn(self, samples: int) -> int:
        """Answers per task where so many are asked for: one where more would be the same."""
        return 1 if self.is_fixed else samples


class ModelPart(Part):
    """The model to start from."""

    source: Filled = Field(description="builtin://NAME, a folder, or a hub id")
    chat_template: Literal["own", "nemotron-cascade-1", "nemotron-cascade-2"] = Field(
        "own", description="own: the tokenizer's"
    )
    thinking_switch: ThinkingSwitch = Field(
        "template",
        description="what asks for thinking or for none. template: the template's own way; system: words "
        "of the system turn [LN]; slash: words after the last user turn [C1]. With words, answers open their "
        "think block themselves",
    )
    thinking_words: tuple[Word, Word] | None = Field(
        None,
        description="what asks for thinking, and what for none; None: `detailed thinking on` and `detailed "
        "thinking off` [LN], or ` /think` and ` /no_think` [C1]",
    )
    precision: PrecisionName | None = Field(
        None, description="of training and sampling; None: fp32 on a CPU, bf16 on a GPU"
    )
    low_precision: LowPrecision = Field(LowPrecision(), description="how fp8 and nvfp4 are used")
    long_context: LongContext | None = Field(None, description="stretch the context; None: the model's own")
    draft_tokens: PositiveInt | None = Field(
        None,
        description="tokens that the model's multi-token-prediction head drafts a step of sampling "
        "(speculative decoding, lossless: arXiv 2302.01318); None: no drafts",
    )
    rollout: Rollout = Field(Rollout(), description="which engine samples answers")


Alias = Annotated[str, formed(r"^[A-Za-z][A-Za-z0-9_-]{0,63}$", "an alias such as champion")]


class Tracking(Part):
    """Where MLflow is. None: a sqlite file in the run's folder (or MLFLOW_TRACKING_URI when set)."""

    uri: Annotated[str | None, AfterValidator(tracking_address)] = Field(
        None, description="address of a server or a database; None: a file in the run's folder"
    )
    experiment: Filled = Field("kascade", description="MLflow's experiment")
    promote_as: Alias | None = Field(
        None,
        description="alias of the registered model (named as the recipe) that moves to the final checkpoint "
        "when every stage of the main line was accepted or recovered, and the checkpoint is shown to be "
        "better than the one promoted before or equal; None: nothing is registered",
    )


class Storage(Part):
    """Where checkpoints are. None: the run's folder (or KASCADE_CHECKPOINTS when set)."""

    checkpoints: Annotated[str | None, AfterValidator(store_address)] = Field(
        None, description="s3://BUCKET/FOLDER or file:///FOLDER"
    )


class Recipe(Part):
    """One cascade, completed and checked."""

    kascade: Literal[1] = Field(description="version of this format")
    name: Name = Field(description="of the run, its pipeline and its registered model")
    description: str = Field("", description="what the recipe is for, in one line")
    model: ModelPart = Field(description="the model to start from")
    seed: int = Field(0, ge=0, lt=2**32, description="of everything that is drawn at random")
    threads: PositiveInt | None = Field(
        None, le=MOST_THREADS, description="CPU threads of torch; None: all cores"
    )
    exam_processes: PositiveInt = Field(
        1,
        le=MOST_PROCESSES,
        description="processes that share the benchmarks, each with one thread and a copy of the model",
    )
    save_on_signal: float = Field(
        20.0,
        ge=0,
        le=3600,
        description="seconds that a training stage has after SIGTERM to save its state; 0: it ends at once. "
        "On a cluster Kubernetes says how long (30 s)",
    )
    budget_cpu_hours: PositiveFloat | None = Field(
        None, description="an earlier name of `budget.cpu_hours`, which counts where both are given"
    )
    budget: Budget = Field(Budget(), description="what the run may cost; a stage that would exceed it waits")
    prices: Prices = Field(Prices(), description="what an hour costs, for the plan and the budget")
    approval: Approval = Field(Approval(), description="where the run waits for a person's word")
    adapter: Adapter | None = Field(
        None, description="LoRA for every stage without its own; None: such a stage trains all weights"
    )
    stages: tuple[Stage, ...] = Field(min_length=1, description="what is trained, in order")
    benchmarks: tuple[Benchmark, ...] = Field(
        min_length=1, description="what is measured on the base model and after every stage"
    )
    guard: Guard = Field(Guard(), description="when a drop is a regression, and what follows")
    judge: JudgeModel | None = Field(
        None, description="the model that judges what no rule can; None: no judge"
    )
    storage: Storage = Field(Storage(), description="where checkpoints are kept")
    tracking: Tracking = Field(Tracking(), description="where MLflow is")
    cluster: Cluster = Field(Cluster(), description="what pods get on a cluster")
    notify: tuple[Notify, ...] = Field((), description="who is told what happens to the run")
    retrain: Retrain | None = Field(
        None, description="a run that is started again and again; None: it always trains"
    )
    attest: Attest | None = Field(
        None, description="the signature on what is promoted; None: nothing is signed"
    )
    hardware: Hardware | None = Field(
        None, description="what `plan` and `check` count memory against; None: it is not counted"
    )

    @property
    def limits(self) -> Budget:
        """The budget, by its present name or its earlier one."""
        if self.budget.cpu_hours is not None or self.budget_cpu_hours is None:
            return self.budget
        return self.budget.model_copy(update={"cpu_hours": self.budget_cpu_hours})

    @property
    def longest_answer(self) -> int:
        """Most tokens of an answer to a benchmark. Other tools have limits of their own."""
        own = [one for one in self.benchmarks if not one.source.of_another_tool]
        return max(one.sampling.max_new_tokens for one in own or self.benchmarks)

    @model_validator(mode="after")
    def _references_exist(self) -> Recipe:
        check_whole(self.model_dump(mode="json"))
        return self
