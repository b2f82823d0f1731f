"""Checks of what refers to what: they need the whole recipe, so no single field can make them.

They read plain JSON values and pass over what is missing or of a wrong type, so that they also run on
a recipe with other faults and all faults are reported at once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from kascade.environment_names import known_environments, plugin_environments
from kascade.task import SHIPPED_DOMAINS, in_order

BASE = "base"
RESERVED_NAMES = frozenset(
    {BASE, "best", "benchmarks", "finish", "preflight", "report", "seed", "threads"}
    | {"model", "guard", "judge", "storage", "tracking", "cluster", "adapter", "hardware"}
    | {"attest", "notify", "retrain", "budget", "prices", "approval", "exam_processes", "save_on_signal"}
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong at `path`: keys and indices from the part that is checked.

    also: paths of further fields that it depends on. An error stands at the one that the user wrote.
    """

    path: tuple[str | int, ...]
    what: str
    allowed: str | None = None
    remedy: str | None = None
    also: tuple[tuple[str | int, ...], ...] = ()


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
class NamedPart:
    """A stage or benchmark that has a name. value: as JSON."""

    path: tuple[str | int, ...]
    name: str
    value: Mapping[str, Any]


def cross_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """Every dangling or doubtful reference of a recipe given as JSON value."""
    stages, benchmarks = entries_of(recipe, "stages"), entries_of(recipe, "benchmarks")
    for entries in (stages, benchmarks):
        yield from _names_are_unique(entries)
    domains = _domains(recipe, [*stages, *benchmarks])
    for position, stage in enumerate(stages):
        if stage.name in RESERVED_NAMES:
            what = f"a stage cannot be called {stage.name!r}"
            yield Problem((*stage.path, "name"), what, f"any name but {', '.join(sorted(RESERVED_NAMES))}")
        yield from _references_exist(stage, stages[:position], benchmarks, domains)
    yield from _side_branches_are_used(stages)
    yield from _judges_are_there(stages, recipe)
    yield from _environments_are_registered(recipe)


def entries_of(recipe: Mapping[str, Any], kind: str) -> list[NamedPart]:
    """The stages or benchmarks of a recipe that have a name."""
    items = recipe.get(kind)
    return [
        NamedPart((kind, index), item["name"], item)
        for index, item in enumerate(items if isinstance(items, list) else [])
        if isinstance(item, dict) and isinstance(item.get("name"), str)
    ]


def _names_are_unique(entries: Sequence[NamedPart]) -> Iterator[Problem]:
    counts = Counter(entry.name for entry in entries)
    seen: set[str] = set()
    for entry in entries:
        if counts[entry.name] > 1 and entry.name in seen:
            remedy = f"give it another name, such as {entry.name[:37]}-2"
            yield Problem((*entry.path, "name"), f"{entry.name!r} is used twice", remedy=remedy)
        seen.add(entry.name)


def _references_exist(
    stage: NamedPart, earlier: Sequence[NamedPart], benchmarks: Sequence[NamedPart], domains: Sequence[str]
) -> Iterator[Problem]:
    stages_before = [other.name for other in earlier]
    parent = stage.value.get("parent")
    if isinstance(parent, str) and parent not in stages_before:
        yield unknown_name((*stage.path, "parent"), parent, "an earlier stage", stages_before)
    goals = stage.value.get("goals")
    exams = [benchmark.name for benchmark in benchmarks]
    for index, goal in enumerate(goals if isinstance(goals, list) else []):
        if isinstance(goal, str) and goal not in exams:
            yield unknown_name((*stage.path, "goals", index), goal, "a benchmark", exams)
    teachers = stage.value.get("teachers")
    for domain, teacher in (teachers if isinstance(teachers, dict) else {}).items():
        path = (*stage.path, "teachers", domain)
        if domains and domain not in domains:
            yield unknown_name(path, domain, "a domain of this recipe's environments", domains)
        elif isinstance(teacher, str) and teacher != "best" and teacher not in stages_before:
            yield unknown_name(path, teacher, "an earlier stage", [*stages_before, "best"])


def _domains(recipe: Mapping[str, Any], entries: Sequence[NamedPart]) -> list[str]:
    """Domains that the recipe's environments may have. Empty where only a plug-in's own class can say."""
    sources = [source for entry in entries for source in _sources(entry.value)]
    if any(source.get("environment") in plugin_environments() for source in sources):
        return []
    options = [source["options"] for source in sources if isinstance(source.get("options"), dict)]
    declared = [option["domain"] for option in options if isinstance(option.get("domain"), str)]
    return in_order([*SHIPPED_DOMAINS, *declared])


def _sources(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Data sources of a stage or a benchmark."""
    mixes = value.get("data")
    parts = [value, *(mixes if isinstance(mixes, list) else [])]
    for part in parts:
        source = part.get("source") if isinstance(part, dict) else None
        if isinstance(source, dict):
            yield source


def unknown_name(path: tuple[str | int, ...], name: str, what: str, known: Sequence[str]) -> Problem:
    """`name` is not one of `known`, which are called `what`."""
    return Problem(
        path,
        f"{name!r} is not {what}",
        ", ".join(known) or f"nothing: there is no {re.sub('^an? ', '', what)}",
        nearest(name, known),
    )


def _side_branches_are_used(stages: Sequence[NamedPart]) -> Iterator[Problem]:
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


def _judges_are_there(stages: Sequence[NamedPart], recipe: Mapping[str, Any]) -> Iterator[Problem]:
    for stage in stages:
        judge = stage.value.get("judge")
        if isinstance(judge, dict) and judge.get("kind") == "genrm" and not recipe.get("judge"):
            what, remedy = "the recipe names no judge", "add `judge: {url: ..., model: ...}` to the recipe"
            yield Problem((*stage.path, "judge", "kind"), what, "rule, reward_model", remedy)


def _uses(stage: NamedPart, branch: str) -> bool:
    teachers = stage.value.get("teachers")
    named = list(teachers.values()) if isinstance(teachers, dict) else []
    return stage.value.get("parent") == branch or branch in named


def _environments_are_registered(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    known = sorted(known_environments())
    for where, name in _environments(value, path):
        if name not in known:
            yield unknown_name(where, name, "a registered environment", known)


def _environments(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, Mapping):
        if isinstance(value.get("environment"), str):
            yield (*path, "environment"), value["environment"]
        for key, item in value.items():
            yield from _environments(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _environments(item, (*path, index))
