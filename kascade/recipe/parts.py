"""Parts of every stage: optimiser, limits and data. [C2] is Nemotron-Cascade 2 (arXiv 2603.19220)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from kascade.environment_names import OF_OTHER_TOOLS
from kascade.recipe.bounds import MOST_GENERATED
from kascade.recipe.checks import CrossCheckError, Problem
from kascade.task import Mode

FORM = "form"  # what a text's pattern says, in words, in its JSON Schema


def formed(pattern: str, words: str) -> Any:
    """A field's text of a form. words: what the pattern allows, for people."""
    return Field(pattern=pattern, json_schema_extra={FORM: words})


Name = Annotated[
    str, formed(r"^[a-z][a-z0-9_-]{0,39}$", "a name of at most 40 lower-case letters, digits, _ and -")
]
Filled = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
ROWS_HELP = (
    "rows: a file (JSONL, JSON, CSV, TSV, Parquet), a folder of them or of save_to_disk, hf://OWNER/NAME, or "
    "s3://BUCKET/KEY; None: generated tasks"
)


class Part(BaseModel):
    """Base of all recipe parts: unknown keys are errors, values do not change after parsing."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Optimizer(Part):
    """AdamW with warm-up. Defaults: [C2 App. B]."""

    learning_rate: PositiveFloat = Field(3e-6, description="after the warm-up [C2 App. B]")
    final_learning_rate: float | None = Field(
        None, ge=0, description="where the schedule ends; None: constant"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="how the learning rate falls after the warm-up"
    )
    warmup_steps: int = Field(0, ge=0, description="steps in which the learning rate rises to its value")
    warmup_start: float = Field(0.0, ge=0, description="learning rate at step 0 of the warm-up")
    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.95), description="decay of the means of gradients and of their squares [C2 App. B]"
    )
    weight_decay: float = Field(0.1, ge=0, description="decoupled weight decay [C2 App. B]")
    max_grad_norm: PositiveFloat = Field(1.0, description="longer gradients are shortened to this norm")

    @model_validator(mode="after")
    def _schedule_has_an_end(self) -> Optimizer:
        if (self.schedule == "constant") != (self.final_learning_rate is None):
            what = f"a {self.schedule} schedule goes with final_learning_rate {self.final_learning_rate}"
            remedy = "give both a schedule (linear, cosine) and final_learning_rate, or neither"
            path = ("final_learning_rate",)
            raise CrossCheckError([Problem(path, what, remedy=remedy, also=(("schedule",),))])
        return self


def check_warmup(optimizer: Optimizer, steps: int) -> None:
    if optimizer.warmup_steps > steps:
        what = f"the warm-up of {optimizer.warmup_steps} steps is longer than the {steps} steps in all"
        remedy = "set optimizer.warmup_steps, too, or train for more steps"
        path = ("optimizer", "warmup_steps")
        raise CrossCheckError([Problem(path, what, f"0 to {steps}", remedy, also=(("steps",),))])


class TrainingLimits(Part):
    """Training stops when one of these is passed; None switches that check off."""

    max_logprob_gap: PositiveFloat | None = Field(
        0.05, description="mean |log p(trainer) - log p(sampler)| over a step's tokens, nats"
    )
    max_dropped_tokens: Share | None = Field(0.2, description="share of tokens outside the importance range")
    min_entropy: float | None = Field(
        None, description="mean entropy of the policy at the tokens that it learns from, nats"
    )
    max_entropy: float | None = Field(
        None, description="mean entropy of the policy at the tokens that it learns from, nats"
    )
    max_response_tokens: PositiveFloat | None = Field(None, description="mean length of a step's rollouts")
    min_response_tokens: PositiveFloat | None = Field(None, description="mean length of a step's rollouts")
    max_truncated: Share | None = Field(None, description="share of rollouts cut at the length limit")
    max_grader_errors: Share | None = Field(0.1, description="share of grades that are errors")

    @model_validator(mode="after")
    def _limits_leave_room(self) -> TrainingLimits:
        problems = []
        for name, low, high in (
            ("entropy", self.min_entropy, self.max_entropy),
            ("response_tokens", self.min_response_tokens, self.max_response_tokens),
        ):
            if low is not None and high is not None and low >= high:
                what = (
                    f"min_{name} {low:g} is not below max_{name} {high:g}: every step would end the training"
                )
                also = ((f"max_{name}",),)
                problems.append(Problem((f"min_{name}",), what, f"below {high:g}", also=also))
        if problems:
            raise CrossCheckError(problems)
        return self


class Join(Part):
    """Rows of another file whose fields are added to a source's rows, such as answers published apart."""

    path: Filled = Field(description=ROWS_HELP.partition("; None")[0])
    on: str = Field("id", description="the field that is the same in both")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="our field: their column (dots reach into objects and lists); "
        "none: every field that the row does not have itself",
    )
    required: bool = Field(True, description="false: rows without a partner stay as they are")


class DataSource(Part):
    """Where an environment's tasks come from: generated here, or read from rows. See docs/data.md."""

    environment: str = Field(description="who reads the rows, poses the tasks and grades the answers")
    path: Filled | None = Field(None, description=ROWS_HELP)
    count: PositiveInt | None = Field(
        2000, le=MOST_GENERATED, description="how many tasks to generate (ignored for a path)"
    )
    levels: tuple[Share, Share] = Field((0.0, 1.0), description="range of difficulty of generated tasks")
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="the environment's own options (docs/environments.md)"
    )
    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet"] = Field(
        "auto", description="of the files; auto: by their names' endings"
    )
    layout: str = Field("auto", description="how rows are laid out; auto: recognised by their fields")
    columns: dict[str, str] = Field(
        default_factory=dict, description="our field: their column (dots reach into objects)"
    )
    join: Join | None = Field(None, description="rows of another file to take further fields from")
    prompt: str | None = Field(None, description="text of the user's turn; {column} is replaced by its value")
    system: str | None = Field(None, description="system message for rows that have none")
    split: str | None = Field(None, description="which split of a dataset; None: train, or every file")
    subset: str | None = Field(None, description="which configuration of a hub dataset")
    turns: Literal["last", "all"] = Field(
        "last", description="which assistant turns of `messages` are answers to learn"
    )
    thinking: bool = Field(False, description="answers to these rows begin inside an open think block")
    mode: Mode | None = Field(
        None,
        description="what the prompt asks for: think, no_think, or unasked (the model decides). Answers to "
        "imitate are made to fit, and how many answers obey is counted. None: as the rows are, nothing is "
        "counted",
    )
    hold_out: bool = Field(
        True, description="split rows 80/10/10 by hash; false: all of them wherever they are named"
    )
    on_bad_row: Literal["stop", "skip"] = Field(
        "stop", description="stop before the run, or leave bad rows out and count them"
    )
    max_bad_rows: int = Field(100, ge=0, description="skipping more than this stops after all")

    @property
    def of_another_tool(self) -> bool:
        """Whether another tool poses the tasks and grades the answers: a benchmark, and no training data."""
        return self.environment in OF_OTHER_TOOLS

    @model_validator(mode="after")
    def _tasks_come_from_somewhere(self) -> DataSource:
        problems = []
        if self.path is None and self.count is None:
            problems.append(
                Problem(("count",), "neither a path to read nor a count to generate", remedy="give one")
            )
        if self.thinking and self.mode in ("no_think", "unasked"):
            what = f"thinking: true says that answers begin inside a think block, mode is {self.mode}"
            problems.append(Problem(("mode",), what, "think", also=(("thinking",),)))
        if self.levels[0] > self.levels[1]:
            problems.append(Problem(("levels",), f"{list(self.levels)} is not a range", "[low, high]"))
        if problems:
            raise CrossCheckError(problems)
        return self


class Mix(Part):
    """One data source with its share of each batch."""

    source: DataSource = Field(description="where the tasks come from")
    weight: PositiveFloat = Field(1.0, description="share of each batch, relative to the other sources")
