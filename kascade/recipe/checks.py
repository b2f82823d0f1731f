"""Checks of what refers to what: they need the whole recipe, so no single field can make them.

They read plain JSON values and pass over what is missing or of a wrong type, so that they also run on
a recipe with other faults and all faults are told at once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from kascade.environments.registry import known_environments

BASE = "base"
RESERVED_NAMES = frozenset(
    {BASE, "best", "benchmarks", "cluster", "finish", "guard", "judge", "threads", "tracking"}
    | {"preflight", "report", "storage"}
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong at `path`: keys and indices from the part that is checked."""

    path: tuple[str | int, ...]
    what: str
    allowed: str | None = None
    remedy: str | None = None


class CrossCheckError(ValueError):
    """Several problems at once; the loader turns each into a fault with its line."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{'.'.join(map(str, p.path))}: {p.what}" for p in self.problems))


def nearest(word: object, names: Sequence[str]) -> str | None:
    """ "did you mean ...?" with the closest of `names`, where one is close."""
    match = get_close_matches(str(word), names, n=1)
    return f"did you mean {match[0]!r}?" if match else None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A stage or benchmark that has a name."""

    path: tuple[str | int, ...]
    name: str
    value: Mapping[str, Any]


def cross_check(recipe: Mapping[str, Any]) -> None:
    """Raise CrossCheckError when a recipe refers to what is not there."""
    problems = list(cross_problems(recipe))
    if problems:
        raise CrossCheckError(problems)


def cross_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """Every dangling or doubtful reference of a recipe given as JSON value."""
    stages, benchmarks = _entries(recipe, "stages"), _entries(recipe, "benchmarks")
    for entries in (stages, benchmarks):
        yield from _names_are_unique(entries)
    for position, stage in enumerate(stages):
        if stage.name in RESERVED_NAMES:
            what = f"a stage cannot be called {stage.name!r}"
            yield Problem((*stage.path, "name"), what, f"any name but {', '.join(sorted(RESERVED_NAMES))}")
        yield from _references_exist(stage, stages[:position], benchmarks)
    yield from _side_branches_are_used(stages)
    yield from _judges_are_there(stages, recipe)
    yield from _placements_fit(recipe, stages)
    yield from _environments_are_registered(recipe)


def _entries(recipe: Mapping[str, Any], kind: str) -> list[_Entry]:
    items = recipe.get(kind)
    return [
        _Entry((kind, index), item["name"], item)
        for index, item in enumerate(items if isinstance(items, list) else [])
        if isinstance(item, dict) and isinstance(item.get("name"), str)
    ]


def _names_are_unique(entries: Sequence[_Entry]) -> Iterator[Problem]:
    counts = Counter(entry.name for entry in entries)
    seen: set[str] = set()
    for entry in entries:
        if counts[entry.name] > 1 and entry.name in seen:
            remedy = f"give it a name of its own, such as {entry.name[:37]}-2"
            yield Problem((*entry.path, "name"), f"{entry.name!r} is used twice", remedy=remedy)
        seen.add(entry.name)


def _references_exist(
    stage: _Entry, earlier: Sequence[_Entry], benchmarks: Sequence[_Entry]
) -> Iterator[Problem]:
    stages_before = [other.name for other in earlier]
    parent = stage.value.get("parent")
    if isinstance(parent, str) and parent not in stages_before:
        yield _unknown((*stage.path, "parent"), parent, "an earlier stage", stages_before)
    goals = stage.value.get("goals")
    exams = [benchmark.name for benchmark in benchmarks]
    for index, goal in enumerate(goals if isinstance(goals, list) else []):
        if isinstance(goal, str) and goal not in exams:
            yield _unknown((*stage.path, "goals", index), goal, "a benchmark", exams)
    teachers = stage.value.get("teachers")
    for domain, teacher in (teachers if isinstance(teachers, dict) else {}).items():
        if isinstance(teacher, str) and teacher != "best" and teacher not in stages_before:
            path = (*stage.path, "teachers", domain)
            yield _unknown(path, teacher, "an earlier stage", [*stages_before, "best"])


def _unknown(path: tuple[str | int, ...], name: str, what: str, known: Sequence[str]) -> Problem:
    return Problem(
        path,
        f"{name!r} is not {what}",
        ", ".join(known) or f"nothing: there is no {what}",
        nearest(name, known),
    )


def _side_branches_are_used(stages: Sequence[_Entry]) -> Iterator[Problem]:
    branches = [stage for stage in stages if stage.value.get("side_branch") is True]
    if stages and len(branches) == len(stages):
        yield Problem(
            ("stages",), "every stage is a side branch", remedy="leave at least one on the main line"
        )
    for branch in branches:
        later = stages[stages.index(branch) + 1 :]
        if not any(_uses(stage, branch.name) for stage in later):
            yield Problem(
                (*branch.path, "side_branch"),
                f"no later stage starts from {branch.name!r} or learns from it",
                remedy="name it as `parent` or under `teachers` of a later stage, or set side_branch: false",
            )


def _judges_are_there(stages: Sequence[_Entry], recipe: Mapping[str, Any]) -> Iterator[Problem]:
    for stage in stages:
        judge = stage.value.get("judge")
        if isinstance(judge, dict) and judge.get("kind") == "genrm" and not recipe.get("judge"):
            what, remedy = "the recipe names no judge", "add `judge: {url: ..., model: ...}` to the recipe"
            yield Problem((*stage.path, "judge", "kind"), what, "rule, reward_model", remedy)


def _uses(stage: _Entry, branch: str) -> bool:
    teachers = stage.value.get("teachers")
    named = list(teachers.values()) if isinstance(teachers, dict) else []
    return stage.value.get("parent") == branch or branch in named


def _placements_fit(recipe: Mapping[str, Any], stages: Sequence[_Entry]) -> Iterator[Problem]:
    """Placements of stages that there are, as jobs that can train their kind."""
    cluster = recipe.get("cluster")
    if not isinstance(cluster, dict):
        return
    named = cluster.get("stages")
    placements = named if isinstance(named, dict) else {}
    known = [stage.name for stage in stages]
    for name in [name for name in placements if name not in known]:
        yield _unknown(("cluster", "stages", name), name, "a stage", known)
    for stage in stages:
        own = ("stages", stage.name) if stage.name in placements else ("default",)
        placement = placements.get(stage.name, cluster.get("default"))
        runs_as = placement.get("runs_as") if isinstance(placement, dict) else None
        fitting = "trainjob" if stage.value.get("kind") == "sft" else "rayjob"
        if runs_as in ("trainjob", "rayjob") and runs_as != fitting:
            what = f"a {runs_as} does not train {stage.name!r}, a stage of kind {stage.value.get('kind')}"
            yield Problem(("cluster", *own, "runs_as"), what, f"auto, inline, {fitting}")
        elif fitting == "rayjob" and _several_nodes(placement) and not _has_workers(stage):
            what = f"{stage.name!r} has no `workers` to spread over nodes"
            remedy = "give the stage trainers and samplers under `workers` (RL), or one node"
            yield Problem(("cluster", *own, "nodes"), what, remedy=remedy)
        elif fitting == "rayjob" and _several_nodes(placement):
            with suppress(TypeError, ValueError):  # values of a wrong type are told elsewhere
                yield from _actors_have_room(stage, placement)


def _actors_have_room(stage: _Entry, placement: Any) -> Iterator[Problem]:
    """All actors of a RayJob, and the process that drives them, on its nodes at once."""
    workers = stage.value["workers"]
    trainers, samplers = workers.get("trainers", 1), workers.get("samplers", 0)
    actors = count_actors(trainers, samplers)
    needs = [(workers.get("cpus", 1), workers.get("gpus", 0))] * actors
    driver = workers.get("driver_cpus", 1), workers.get("driver_gpus", 0)
    node = _cores(str(placement.get("cpu", "2"))), placement.get("accelerators", 0)
    free = [node] * placement.get("nodes", 1)
    for cpus, gpus in [driver, *needs]:
        place = next((n for n, (c, g) in enumerate(free) if c >= cpus and g >= gpus), None)
        if place is None:
            what = (
                f"{actors} actors of {needs[0][0]:g} CPUs and {needs[0][1]:g} accelerators, and a driver of "
                f"{driver[0]:g} and {driver[1]:g}, do not fit on {len(free)} x ({node[0]:g} and {node[1]})"
            )
            remedy = "give it more `nodes`, `cpu` or `accelerators`, or ask for fewer or smaller actors"
            yield Problem((*stage.path, "workers"), what, remedy=remedy)
            return
        free[place] = free[place][0] - cpus, free[place][1] - gpus


def count_actors(trainers: int, samplers: int) -> int:
    """Processes beside the stage's own, which is the trainer where there is one only."""
    return samplers + (trainers if trainers > 1 else 0)


def _cores(quantity: str) -> float:
    """CPUs of a Kubernetes quantity; a Ray node counts whole ones, rounded up."""
    number = float(quantity.removesuffix("m"))
    return float(math.ceil(number / 1000 if quantity.endswith("m") else number))


def _several_nodes(placement: Any) -> bool:
    if not isinstance(placement, dict):
        return False
    runs_as = placement.get("runs_as", "auto")
    return bool(runs_as == "rayjob" or (runs_as == "auto" and placement.get("nodes", 1) != 1))


def _has_workers(stage: _Entry) -> bool:
    workers = stage.value.get("workers")
    if not isinstance(workers, dict):
        return False
    return bool(workers.get("trainers", 1) != 1 or workers.get("samplers", 0) != 0)


def _environments_are_registered(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    known = sorted(known_environments())
    for where, name in _environments(value, path):
        if name not in known:
            yield _unknown(where, name, "a registered environment", known)


def _environments(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, Mapping):
        if isinstance(value.get("environment"), str):
            yield (*path, "environment"), value["environment"]
        for key, item in value.items():
            yield from _environments(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _environments(item, (*path, index))
