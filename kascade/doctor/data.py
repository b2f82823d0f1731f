"""Checks of the tasks of a recipe: options, rows, splits, answers to imitate, contamination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from kascade.doctor.graders import START
from kascade.doctor.subject import NotChecked, Reading, Subject
from kascade.environments import get_environment
from kascade.errors import Fault, UserError
from kascade.recipe.methods import method_of
from kascade.rollout.pools import configured
from kascade.task import Task
from kascade.tracking.wording import count

FAULTS_PER_FILE = 5  # further errors of a file rarely say more


def options(subject: Subject) -> list[Fault]:
    """Options that an environment does not have, graders that ask a judge where the recipe names none, and
    benchmarks of other tools where a stage would learn from them."""
    faults: list[Fault] = []
    graded = {stage.name for stage in subject.recipe.stages if method_of(stage).graded}
    for reading in subject.readings:
        source = reading.source
        if source.of_another_tool and reading.stages:
            what = f"{source.environment} is a benchmark of another tool, and stages cannot train on it"
            faults.append(Fault(reading.place, what, remedy="name it under `benchmarks` only"))
        if source.path is None and not source.options and not source.of_another_tool:
            continue
        try:
            environment = get_environment(source.environment).with_options(source.options)
            environment.check_options(source.options)  # one that is needed may be missing
        except ValueError as error:
            remedy = "see docs/environments.md and docs/graders.md"
            faults.append(Fault(reading.place, str(error), remedy=remedy))
            continue
        is_graded = bool(reading.benchmarks) or not graded.isdisjoint(reading.stages)
        asks = is_graded and environment.needs_judge(rows=source.path is not None)
        if asks and subject.recipe.judge is None:
            what = f"{source.environment} asks a judge, and the recipe names none"
            remedy = "add `judge: {url: ..., model: ...}` to the recipe"
            faults.append(Fault(reading.place, what, remedy=remedy))
    return faults


def servers(subject: Subject) -> list[Fault]:
    """What environments need and cannot have here: a server that answers, another tool. Each server once."""
    other = "correct the benchmark's `options`, or install what it needs"
    found: dict[str, Fault] = {}
    for reading in subject.readings:
        for problem in subject.unmet(reading.source):
            what = f"{reading.source.environment}: {problem}"
            to_do = START if configured(reading.source).behind_server else other
            found.setdefault(what, Fault(reading.place, what, remedy=to_do))
    return list(found.values())


def rows(subject: Subject) -> list[Fault]:
    """Rows that are not there or do not load, each once, at most a few per file."""
    found: dict[Fault, str] = {}
    away = []
    for reading, tasks in subject.rows:
        if isinstance(tasks, NotChecked):
            away.append(str(tasks))
        elif isinstance(tasks, UserError):
            found |= dict.fromkeys(tasks.faults, str(reading.source.path))
    if away and len(away) == len(subject.rows):
        raise NotChecked("; ".join(dict.fromkeys(away)))
    return list(_few(found))


def _few(found: Mapping[Fault, str]) -> Iterable[Fault]:
    """The first errors of each file, then how many more it has."""
    numbers = Counter(found.values())
    shown: Counter[str] = Counter()
    for fault, path in found.items():
        shown[path] += 1
        if shown[path] <= FAULTS_PER_FILE:
            yield fault
        elif shown[path] == FAULTS_PER_FILE + 1:
            what = f"has {numbers[path] - FAULTS_PER_FILE} more errors"
            yield Fault(path, what, remedy=f"see all of them: kascade data check {path}")


def _had(subject: Subject) -> Iterable[tuple[Reading, list[Task]]]:
    """The sources whose rows load."""
    for reading, tasks in subject.rows:
        if isinstance(tasks, list):
            yield reading, tasks


def splits(subject: Subject) -> list[Fault]:
    """Splits without a row that a stage or a benchmark needs."""
    return [fault for reading, tasks in _had(subject) for fault in reading.split_faults(tasks)]


def demonstrations(subject: Subject) -> list[Fault]:
    """Stages with a source of which no task teaches anything by the stage's method."""
    faults = []
    for index, stage in enumerate(subject.recipe.stages):
        lacks = method_of(stage).lacks
        for source, tasks in subject.pools.get(stage.name, []):
            missing = {lacks(task) for task in tasks}
            if None not in missing:
                what = (
                    f"{source.path or source.environment} has no {' and no '.join(sorted(map(str, missing)))}"
                )
                remedy = "give rows that have some, or train this environment in an RL stage"
                faults.append(Fault(subject.place("stages", index, "data"), what, remedy=remedy))
    return faults


def generators(subject: Subject) -> list[Fault]:
    """Generators that cannot make the tasks that are asked of them."""
    if not subject.generated:
        raise NotChecked("tasks are not generated here")
    return subject.generator_faults


def contamination(subject: Subject) -> list[Fault]:
    """Benchmarks some of whose tasks the training data already shows."""
    if not subject.exams or not subject.pools:
        raise NotChecked("no rows of a stage and of a benchmark are at hand to compare")
    remedy = "take these tasks out of the training rows: kascade data check shows which"
    found = []
    for name, tasks in subject.exams.items():
        counts = {stage: seen[name] for stage, seen in subject.contaminated.items() if name in seen}
        if counts:
            stages = ", ".join(f"{stage} {number}" for stage, number in counts.items())
            what = f"stages train on some of its {count(len(tasks), 'task')}: {stages}"
            found.append(Fault(f"benchmark {name}", what, remedy=remedy))
    return found
