"""When a fall is a loss, what is drawn to find out, and what follows.

The defaults were chosen by simulation (`benchmarks/guard_table.py`, figures in docs/guard-figures.md). At
most 1% of cascades have a false alarm, a call although the tasks fell by no more than `within_margin`. At
400 tasks a fall of 5 points is called with at least 95%.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kascade.recipe.parts import Optimizer, Part, check_warmup
from kascade.recipe.rules import ImportanceRange
from kascade.recipe.workers import Workers


class Recovery(Part):
    """The MOPD branch that answers a loss."""

    rounds: int = Field(2, ge=0, le=2, description="tries to win a loss back; 0: none")
    steps: PositiveInt = Field(40, description="updates of one try")
    optimizer: Optimizer = Field(
        Optimizer(learning_rate=2e-6, warmup_steps=30, warmup_start=2e-7),
        description="how weights are updated",
    )
    prompts_per_step: PositiveInt = Field(128, description="tasks per step [C2 App. B]")
    rollouts_per_prompt: PositiveInt = Field(4, description="answers drawn per task [C2 App. B]")
    full_vocabulary: bool = Field(
        False, description="reverse KL over the whole vocabulary, not the sampled token"
    )
    importance: ImportanceRange = Field(ImportanceRange(), description="tokens that count")
    keep_weight: PositiveFloat = Field(
        1.0,
        description="prompts of all domains to keep together (the stage's own result teaches them) to each "
        "one of the lost domains together",
    )
    workers: Workers | None = Field(
        None,
        description="who trains and samples in recoveries of stages that have no `workers` (SFT, DPO): a "
        "recovery learns from its own answers, which processes of a TrainJob do not draw; None: one process",
    )

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Recovery:
        check_warmup(self.optimizer, self.steps)
        return self


class Retention(Part):
    """What `kept` means, and the check after the last stage that everything once best is still there."""

    margin: float = Field(
        0.03, gt=0, le=1, description="kept: the lower limit of the difference is above minus this"
    )
    level: float = Field(0.05, gt=0, lt=0.5, description="one-sided level of both limits, over all looks")
    samples: PositiveInt = Field(
        64, description="answers per task at most, of a benchmark in a recovery or in the end check"
    )
    near_best: float = Field(
        2.0,
        ge=0,
        description="standard errors of the difference to the best screening score within which an accepted "
        "checkpoint may have been the best: the end is held against each of them (2: about 95%)",
    )
    futile_chance: float = Field(
        0.005,
        ge=0,
        lt=0.5,
        description="no more samples are drawn where the last look would show kept, and lost, with less than "
        "this chance (conditional power: Lan, Simon, Halperin 1982); 0: always draw on",
    )
    on_loss: Literal["recover", "report", "stop"] = Field(
        "report",
        description="what follows when the end check cannot show everything as kept: one last MOPD over all "
        "lost domains, judged again; only the report; or stop",
    )


class Guard(Part):
    """When a fall is a loss, and what then."""

    family_level: float = Field(0.01, gt=0, lt=0.5, description="false alarms allowed over the whole cascade")
    first_share: float = Field(
        0.8, gt=0, le=1, description="part of family_level for what stages trained; recoveries get the rest"
    )
    min_drop: float = Field(0.03, ge=0, le=1, description="smaller falls are tolerated however certain")
    screen_samples: PositiveInt = Field(2, description="samples a task, every guard benchmark")
    confirm_samples: PositiveInt = Field(
        32, description="fresh samples a task at most, suspicious benchmarks only"
    )
    first_look: PositiveInt = Field(
        2, description="fresh samples a task at the first look, at least; every look doubles them"
    )
    screen_level: float = Field(
        0.25, gt=0, lt=1, description="one-sided p under which a benchmark is suspicious"
    )
    better_level: float = Field(
        0.1, gt=0, le=1, description="one-sided p under which an accepted checkpoint is the new baseline"
    )
    within_share: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="part of the level for the test of these very tasks; the rest treats tasks as a sample",
    )
    within_margin: float = Field(
        0.01, ge=0, le=1, description="fall of these very tasks that their test does not count"
    )
    futile_fall: float = Field(
        0.05, gt=0, le=1, description="no more samples are drawn where a fall as large as this is refuted"
    )
    futile_level: float = Field(0.005, gt=0, lt=0.5, description="one-sided level of that refutation")
    rise_level: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="one-sided p under which a goal benchmark has risen over the stage's start",
    )
    max_missing: float = Field(
        0.02, ge=0, lt=1, description="share of answers without a grade above which nothing is judged"
    )
    unequal_missing: float = Field(
        0.001,
        ge=0,
        lt=0.5,
        description="p up to which grades are missing unequally on the two sides, and nothing is judged. The "
        "test is exact and two-sided, over pairs of answers: eleven on one side alone reach .001. A cascade "
        "asks about 100 times, so chance alone stops fewer than one in ten. 0: never",
    )
    visible_fall: float | None = Field(
        None, gt=0, le=1, description="fall that every benchmark must be able to show; None: `min_drop`"
    )
    visible_chance: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="chance with which a stage's fall of that size must be called. One of `min_drop` is "
        "called with 50% at most, as half of them look smaller; this is half of that, which 300 tasks with "
        "32 samples have",
    )
    weak_exams: Literal["refuse", "warn"] = Field(
        "refuse",
        description="what is done about benchmarks that cannot show a fall of `visible_fall` with "
        "`visible_chance`",
    )
    recovery: Recovery = Field(Recovery(), description="the branch that wins a loss back")
    unrecovered: Literal["continue", "rollback", "stop"] = Field(
        "continue",
        description="after the last round: go on with the loss, which later stages then compare with; go "
        "back to what there was before the stage; or stop",
    )
    let_pass_budget: float = Field(
        0.05,
        ge=0,
        description="loss of one benchmark that `continue` may let pass, summed over the cascade; beyond it "
        "the stage is rolled back",
    )
    side_branches: Literal["goals", "all"] = Field(
        "goals",
        description="benchmarks that a side branch is held to. goals: those of what it teaches; it is never "
        "served, and what learns from it is held to all. all: as the main line",
    )
    retention: Retention = Field(
        Retention(), description="what counts as kept, and the check after the last stage"
    )

    @property
    def asked_fall(self) -> float:
        """The fall that every benchmark must be able to show, in reward."""
        return self.min_drop if self.visible_fall is None else self.visible_fall
