"""What a recipe says of a benchmark of another tool."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kascade.environments.options import Options
from kascade.task import Domain


class OutsideOptions(Options):
    """Options of every benchmark of another tool."""

    domain: Domain = Field("knowledge", description="the skill that the benchmark tests")
    metric: str | None = Field(
        None, description="which metric of an answer is its reward; None: the usual one of the tool"
    )
    sampled: bool = Field(
        False,
        description="answers are drawn at random, so that fresh ones can be asked for. false: the same "
        "checkpoint always answers alike, and is asked once",
    )


class LmEvalOptions(OutsideOptions):
    """Of tasks of lm-eval."""

    task: str = Field(description="name of a task or a group of lm-eval")
    include: str | None = Field(None, description="folder with task files of your own")
    filter: str | None = Field(
        None, description="which filter's results count, where a task has several; None: its only one"
    )
    num_fewshot: int | None = Field(
        None, ge=0, description="worked examples in the prompt; None: as the task says"
    )
    chat: bool = Field(False, description="put the prompt into the model's chat template")
    system: str | None = Field(None, description="system message of a chat")
    max_gen_toks: PositiveInt = Field(
        256, description="most tokens of an answer where the task names no number (lm-eval's own default)"
    )
    unsafe_code: bool = Field(
        False, description="allow tasks that run what the model writes on this machine, without a sandbox"
    )

    @model_validator(mode="after")
    def _system_needs_a_chat(self) -> LmEvalOptions:
        if self.system is not None and not self.chat:
            raise ValueError("system: goes with chat: true")
        return self


class HarnessOptions(OutsideOptions):
    """Of any other tool. `command` runs it, `results` is where it writes the results of each answer."""

    command: tuple[str, ...] = Field(
        (),
        strict=False,
        description="a command that runs the tool against the served checkpoint: {url} and {model} are its "
        "API, {out} an empty folder for results, {tasks}, {samples} and {seed} what is asked. "
        "Without a command, `results` names files that are made elsewhere",
    )
    results: str = Field(
        "{out}",
        description="file or folder of lm-eval, Inspect, NeMo Evaluator or plain JSON lines; {checkpoint} "
        "and {digest} stand for the checkpoint",
    )
    benchmark: str | None = Field(
        None, description="which benchmark of the results, where they hold several; None: the only one"
    )
    timeout_s: PositiveFloat = Field(14400.0, description="seconds that the command may take")

    @model_validator(mode="after")
    def _results_come_from_somewhere(self) -> HarnessOptions:
        if not self.command and not any(mark in self.results for mark in ("{checkpoint}", "{digest}")):
            raise ValueError(
                "give a command, or results with {checkpoint} or {digest}: each checkpoint has its own"
            )
        if self.command and "{out}" not in self.results:
            raise ValueError("results: a command writes below {out}")
        if not self.command and self.sampled:
            raise ValueError("sampled: files that are there cannot be asked for fresh answers")
        return self
