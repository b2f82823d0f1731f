"""What a run is doing, read from its folder: tasks' states, progress, and how stages ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from kascade.guard.lineage import own_outcomes
from kascade.recipe.checks import BASE
from kascade.recipe.methods import stage_title
from kascade.recipe.schema import Recipe
from kascade.storage.run_folder import RunFolder, StepState

Mark = Literal["waiting", "running", "done", "earlier", "failed"]
LAST_STEPS = ("preflight", "settle", "retain", "report")
BESIDE = ("begin", "skip", "verdict", "finish")  # for Kubeflow's page: the terminal says it elsewhere


@dataclass(frozen=True, slots=True)
class StageLine:
    """One line of the display: a stage, or what comes before and after the stages.

    mark: "earlier" when an earlier run ended it and this one only found it. step: what it does now. seconds:
    spent in this run. progress: `Progress`' file of the current step. outcome: how the stage ended.
    """

    title: str
    mark: Mark
    step: str = ""
    started: float | None = None
    seconds: float = 0.0
    progress: dict[str, Any] | None = None
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Reads the files of one run; `since` (Unix s) tells this run's tasks from an earlier run's."""

    layout: RunFolder
    recipe: Recipe
    since: float

    def titles(self) -> dict[str, str]:
        """What a person calls the stages, and what comes before and after them, in order."""
        stages = {s.name: f"{n} · {stage_title(s)}" for n, s in enumerate(self.recipe.stages, 1)}
        before = {"preflight": "Preflight", BASE: "Benchmarks of the base model"}
        return {**before, **stages, "retain": "End check", "report": "Report"}

    def states(self) -> list[StepState]:
        """This run's tasks in the order in which they began."""
        return [state for state in self.layout.states() if state["started"] >= self.since]

    def shown(self) -> list[StepState]:
        """The tasks that a person follows here: those beside them only when they fail."""
        return [
            state for state in self.states() if state["state"] == "failed" or not is_beside(state["step"])
        ]

    def rows(self) -> list[StageLine]:
        """The whole cascade, as a person reads it."""
        states, outcomes, earlier = self.shown(), self.outcomes(), self._found_earlier()
        rows = []
        for name, title in self.titles().items():
            own = [state for state in states if owner(state["step"]) == name]
            row = self._row(title, own, outcomes.get(name, ""), name in earlier)
            rows.append(StageLine(title, "waiting", "not begun") if self.not_begun(name, own) else row)
        return rows

    def not_begun(self, name: str, own: list[StepState]) -> bool:
        """Whether a stage was settled without having begun: left out, or held up before it."""
        return (
            any(state["step"] == f"{name}.settle" for state in own)
            and len(own) == 1
            and name not in self.outcomes()
        )

    def _row(self, title: str, own: list[StepState], outcome: str, earlier: bool) -> StageLine:
        if not own:
            return StageLine(title, "waiting")
        last = own[-1]
        seconds = sum(state["seconds"] or 0.0 for state in own)
        if last["state"] == "failed":
            return StageLine(title, "failed", label(last["step"]), seconds=seconds)
        if last["state"] == "succeeded" and is_last(last["step"]):
            return StageLine(title, "earlier" if earlier else "done", seconds=seconds, outcome=outcome)
        started = last["started"] if last["state"] == "running" else None
        return StageLine(title, "running", label(last["step"]), started, seconds, self._progress(last))

    def _progress(self, state: StepState) -> dict[str, Any] | None:
        if state["state"] != "running":
            return None
        return self.layout.progress_since(state["step"], state["started"])

    def outcomes(self) -> dict[str, str]:
        """The newest decision of each stage that has been settled."""
        return {one.stage: one.decision.replace("_", " ") for one in own_outcomes(self.layout).values()}

    def _found_earlier(self) -> set[str]:
        """Stages whose newest outcome is not of this run."""
        own = own_outcomes(self.layout).values()
        written = {one.stage: datetime.fromisoformat(one.created).timestamp() for one in own}
        return {stage for stage, created in written.items() if created < self.since}


def owner(step: str) -> str:
    """The stage (or `preflight`, `base`, `report`) that a step belongs to."""
    return step.partition(".")[0]


def is_beside(step: str) -> bool:
    """Whether nothing waits for the step: it only says on a page what others did."""
    return step.rpartition(".")[2] in BESIDE


def is_last(step: str) -> bool:
    """Whether its stage is over when this step is."""
    return step.rpartition(".")[2] in LAST_STEPS or (owner(step) == BASE and step.endswith(".evaluate"))


def label(step: str) -> str:
    """ "sft.recover-1.evaluate" as "recovery 1: benchmarks"."""
    names = {
        "train": "training",
        "evaluate": "benchmarks",
        "settle": "settling",
        "begin": "beginning",
        "skip": "not begun",
    }
    *_, attempt, action = ["", "", *step.split(".")]
    if attempt.startswith("recover-"):
        return f"recovery {attempt[8:]}: {names.get(action, action)}"
    if action.startswith("recover-"):
        return f"recovery {action[8:]}: training"
    return names.get(action, action)
