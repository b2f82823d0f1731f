"""The whole recipe: stages, exams, guard, model. `recipe.parts` and `recipe.stages` hold the rest.

Sources: [C2] Nemotron-Cascade 2 (arXiv 2603.19220).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kascade.recipe.checks import cross_check
from kascade.recipe.cluster import Cluster, Placement
from kascade.recipe.model_parts import MTP, LongContext, LowPrecision, MoE, PrecisionName
from kascade.recipe.parts import (
    GRPO,
    Clip,
    Conversation,
    Correction,
    Curriculum,
    DataSource,
    ImportanceRange,
    Judge,
    JudgeModel,
    Limits,
    Mix,
    Name,
    Optimizer,
    Pairwise,
    Part,
    Rollout,
    Sampling,
    Share,
    check_warmup,
)
from kascade.recipe.stages import (
    MOPDStage,
    RLHFStage,
    RLStage,
    RolloutStage,
    SFTStage,
    Stage,
    StageKind,
    StagePart,
)

__all__ = [
    "GRPO",
    "Benchmark",
    "Clip",
    "Correction",
    "Conversation",
    "Cluster",
    "Curriculum",
    "DataSource",
    "Guard",
    "ImportanceRange",
    "Judge",
    "JudgeModel",
    "Limits",
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
    "Rollout",
    "RolloutStage",
    "SFTStage",
    "Sampling",
    "Share",
    "Stage",
    "StageKind",
    "StagePart",
    "Storage",
    "Tracking",
    "read_resolved",
]


class Benchmark(Part):
    """An environment, a fixed task set and a sampling rule.

    A recipe file may name a `preset` and leave out what it says: `recipe.benchmark_presets` fills that in.
    """

    name: Name
    preset: str | None = Field(None, description="a published benchmark whose protocol fills in the rest")
    source: DataSource
    tasks: PositiveInt = Field(200, description="how many tasks of the test split")
    sampling: Sampling = Sampling()
    samples: PositiveInt | None = Field(
        None, description="answers a task in the screen (avg@k); None: guard.screen_samples"
    )
    greedy: bool = Field(False, description="also one greedy answer a task, for the report")
    keep_every: PositiveInt = Field(
        256, description="tasks whose answers are drawn, graded and kept at a time; an exam resumes there"
    )


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
        description="prompts of all domains to keep together (the stage's own result teaches them) to each "
        "one of the lost domains together",
    )

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Recovery:
        check_warmup(self.optimizer, self.steps)
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
    unrecovered: Literal["continue", "rollback", "stop"] = Field(
        "continue",
        description="after the last round: go on with the loss, which later stages then compare with; go "
        "back to the stage's start; or stop",
    )


class ModelPart(Part):
    """The model to start from."""

    source: str = Field(description="builtin://NAME, a folder, or a hub id")
    chat_template: Literal["own", "nemotron-cascade-1", "nemotron-cascade-2"] = Field(
        "own", description="own: the tokenizer's"
    )
    precision: PrecisionName | None = Field(
        None, description="of training and sampling; None: fp32 on a CPU, bf16 on a GPU"
    )
    low_precision: LowPrecision = LowPrecision()
    long_context: LongContext | None = Field(None, description="stretch the context; None: the model's own")
    draft_tokens: PositiveInt | None = Field(
        None,
        description="tokens that the model's multi-token-prediction head drafts a step of sampling "
        "(speculative decoding, lossless: arXiv 2302.01318); None: no drafts",
    )
    rollout: Rollout = Rollout()


class Tracking(Part):
    """Where MLflow is. None: a sqlite file in the run's folder (or MLFLOW_TRACKING_URI when set)."""

    uri: str | None = None
    experiment: str = "kascade"
    promote_as: str | None = Field(
        None,
        pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$",
        description="alias of the registered model (named as the recipe) that moves to the final checkpoint "
        "when every stage of the main line was accepted or recovered; None: nothing is registered",
    )


class Storage(Part):
    """Where checkpoints lie. None: the run's folder (or KASCADE_CHECKPOINTS when set)."""

    checkpoints: str | None = Field(
        None, pattern=r"^(s3://[^/@\s]+|file://)\S*$", description="s3://BUCKET/FOLDER or file:///FOLDER"
    )


class Recipe(Part):
    """One cascade, completed and checked."""

    kascade: Literal[1] = Field(description="version of this format")
    name: Name
    description: str = ""
    model: ModelPart
    seed: int = Field(0, ge=0, lt=2**32)
    threads: PositiveInt | None = Field(None, description="CPU threads of torch; None: all cores")
    exam_processes: PositiveInt = Field(
        1, description="processes that share an exam's benchmarks, one thread and one copy of the model each"
    )
    budget_cpu_hours: PositiveFloat | None = Field(
        None, description="stop before a stage that would exceed it"
    )
    stages: tuple[Stage, ...] = Field(min_length=1)
    benchmarks: tuple[Benchmark, ...] = Field(min_length=1)
    guard: Guard = Guard()
    judge: JudgeModel | None = Field(None, description="who judges what no rule can; None: nobody")
    storage: Storage = Storage()
    tracking: Tracking = Tracking()
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def _references_exist(self) -> Recipe:
        cross_check(self.model_dump(mode="json"))
        return self


def read_resolved(path: Path) -> Recipe:
    """The completed recipe that a run keeps. Raises ValueError for a broken file."""
    return Recipe.model_validate_json(path.read_text(encoding="utf-8"))
