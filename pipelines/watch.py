"""What a run is doing, read from its folder: tasks' states, progress, and how stages ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kascade.recipe.checks import BASE
from kascade.recipe.schema import Recipe
from kascade.recipe.titles import stage_title
from kascade.stages.task import TaskState
from kascade.storage.files import read_json
from kascade.storage.layout import RunLayout

Mark = Literal["waiting", "running", "done", "earlier", "failed"]
LAST_STEPS = ("preflight", "settle", "report")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the display: a stage, or what comes before and after the stages.

    mark: "earlier" when it was finished by an earlier run. step: what it does now. seconds: spent in this
    run. progress: `Progress`' file of the current step. outcome: how the stage ended.
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

    layout: RunLayout
    recipe: Recipe
    since: float

    def titles(self) -> dict[str, str]:
        """What a person calls the stages, and what comes before and after them, in order."""
        stages = {s.name: f"{n} · {stage_title(s)}" for n, s in enumerate(self.recipe.stages, 1)}
        return {"preflight": "Preflight", BASE: "Exams of the base model", **stages, "report": "Report"}

    def states(self) -> list[TaskState]:
        """This run's tasks in the order in which they began."""
        paths = self.layout.root.glob("logs/*.state.json")
        found: list[TaskState] = [read_json(path) for path in paths]
        return sorted((s for s in found if s["started"] >= self.since), key=lambda s: s["started"])

    def rows(self) -> list[Row]:
        """The whole cascade, as a person reads it."""
        states, titles, outcomes = self.states(), self.titles(), self.outcomes()
        begun = [owner(state["step"]) for state in states]
        order = list(titles)
        reached = max((order.index(name) for name in begun if name in titles), default=0)
        rows = []
        for index, (name, title) in enumerate(titles.items()):
            own = [state for state in states if owner(state["step"]) == name]
            settled = name == BASE or name in outcomes
            earlier = not own and index < reached and settled
            rows.append(self._row(title, own, outcomes.get(name, ""), earlier))
        return rows

    def _row(self, title: str, own: list[TaskState], outcome: str, earlier: bool) -> Row:
        if not own:
            return Row(title, "earlier" if earlier else "waiting", outcome=outcome if earlier else "")
        last = own[-1]
        seconds = sum(state["seconds"] or 0.0 for state in own)
        if last["state"] == "failed":
            return Row(title, "failed", label(last["step"]), seconds=seconds)
        if last["state"] == "succeeded" and is_last(last["step"]):
            return Row(title, "done", seconds=seconds, outcome=outcome)
        started = last["started"] if last["state"] == "running" else None
        return Row(title, "running", label(last["step"]), started, seconds, self._progress(last))

    def _progress(self, state: TaskState) -> dict[str, Any] | None:
        path = self.layout.progress(state["step"])
        if state["state"] != "running" or not path.exists() or path.stat().st_mtime < state["started"]:
            return None
        progress: dict[str, Any] = read_json(path)
        return progress

    def outcomes(self) -> dict[str, str]:
        """The newest decision of each stage that has been settled."""
        paths = sorted(self.layout.root.glob("outcomes/*.json"), key=lambda path: path.stat().st_mtime)
        return {found["stage"]: found["decision"].replace("_", " ") for found in map(read_json, paths)}


def owner(step: str) -> str:
    """The stage (or `preflight`, `base`, `report`) that a step belongs to."""
    return step.partition(".")[0]


def is_last(step: str) -> bool:
    """Whether its stage is over when this step is."""
    return step.rpartition(".")[2] in LAST_STEPS or (owner(step) == BASE and step.endswith(".evaluate"))


def label(step: str) -> str:
    """ "sft.recover-1.evaluate" as "recovery 1: exams"."""
    names = {"train": "training", "evaluate": "exams", "verdict": "verdict", "settle": "settling"}
    *_, attempt, action = ["", "", *step.split(".")]
    if attempt.startswith("recover-"):
        return f"recovery {attempt[8:]}: {names.get(action, action)}"
    if action.startswith("recover-"):
        return f"recovery {action[8:]}: training"
    return names.get(action, action)
