"""Checks of graders: what confines the programs that they run, and whether they know right answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from kascade.doctor.subject import Subject
from kascade.environments import get_environment
from kascade.environments.crashes import graded
from kascade.environments.isolation import isolation_of
from kascade.environments.judging.judge import judge_is_named
from kascade.environments.options import GRADING
from kascade.environments.rows.gold import gold_answer
from kascade.errors import Fault
from kascade.guard.scores import RIGHT
from kascade.recipe.methods import method_of
from kascade.recipe.schema import Recipe
from kascade.task import Grade, Task, final_answer

log = logging.getLogger(__name__)

GRADED_TASKS = 8  # gold answers graded per benchmark and stage: graders are code, a few show that they run
SHOWN = 2  # errors of a benchmark or a stage's source: the others are mostly of the same cause
WRONG = 1 - RIGHT
START = "start the server, or correct the address in `options`"
REMEDY = "check the expected answer, and what the grader needs (judge, programs, sandbox)"


@dataclass(frozen=True, slots=True)
class Placed:
    """A task and where it comes from: a row's file and line, or a benchmark."""

    place: str
    task: Task


@dataclass(slots=True)
class Trial:
    """How an environment's grader did on gold and empty answers.

    num_graded: gold answers tried. num_wrong: tasks that it misjudged. num_without_gold: tasks without an
    answer that could be written down. num_without_judge, num_without_server: tasks not tried, since their
    grader asks a judge, or a server that does not answer.
    """

    num_graded: int = 0
    num_wrong: int = 0
    num_without_gold: int = 0
    num_without_judge: int = 0
    num_without_server: int = 0
    faults: list[Fault] = field(default_factory=list)


def environments_of(recipe: Recipe) -> set[str]:
    """Every environment that trains or examines."""
    exams = {benchmark.source.environment for benchmark in recipe.benchmarks}
    return exams | {mix.source.environment for stage in recipe.stages for mix in stage.data}


def isolation(subject: Subject) -> list[Fault]:
    """Why this machine cannot confine the untrusted code that the recipe's environments run."""
    return isolation_of(environments_of(subject.recipe))[1]


def gold(subject: Subject) -> list[Fault]:
    """Graders that do not give 1 to gold answers and 0 to empty ones, in benchmarks and RL stages.

    A grader whose server does not answer is left out: `data.servers` names the server.
    """
    rl = {stage.name for stage in subject.recipe.stages if method_of(stage).graded}
    exams = {benchmark.name: benchmark.source for benchmark in subject.recipe.benchmarks}
    posed = {
        f"benchmark {name}": tasks for name, tasks in subject.exams.items() if not subject.unmet(exams[name])
    }
    for name in rl & set(subject.pools):
        for source, tasks in subject.pools[name]:
            if not subject.unmet(source):
                posed[f"stage {name}, {source.path or source.environment}"] = tasks
    faults: list[Fault] = []
    for place, tasks in posed.items():
        placed = [Placed(f"{place}, task {task.id}", task) for task in tasks]
        for trial in try_graders(placed, GRADED_TASKS).values():
            faults += trial.faults[:SHOWN]
            if more := len(trial.faults[SHOWN:]):
                tried = trial.num_graded or len(tasks[:GRADED_TASKS])
                faults.append(
                    Fault(place, f"{more} more of {tried} tasks tried are graded wrongly", remedy=REMEDY)
                )
    return faults


def try_graders(placed: Sequence[Placed], most: int) -> dict[str, Trial]:
    """Each environment's grader on up to `most` gold answers. Gold must grade 1, an empty answer 0.

    In chat a grade is a preference: there gold must beat empty. Without gold answers, empty ones are graded.
    """
    groups: dict[str, list[Placed]] = {}
    for one in placed:
        groups.setdefault(one.task.environment, []).append(one)
    return {name: _try(name, rows, most) for name, rows in groups.items()}


def _try(name: str, rows: Sequence[Placed], most: int) -> Trial:
    answers = [(one, gold_answer(one.task)) for one in rows]
    golden = [(one, gold) for one, gold in answers if gold is not None and final_answer(gold)][:most]
    trial = Trial(num_without_gold=sum(gold is None for _, gold in answers))
    environment = get_environment(name).with_options(rows[0].task.fields.get(GRADING) or {})
    if environment.needs_judge(rows=True) and not judge_is_named():
        trial.num_without_judge = len(rows)
        return trial
    if environment.behind_server and (problems := environment.needs()):
        trial.num_without_server = len(rows)
        trial.faults += [Fault(name, problem, remedy=START) for problem in problems]
        return trial
    trial.num_graded = len(golden)
    tried: list[tuple[Placed, list[str]]] = [(one, [gold, ""]) for one, gold in golden]
    tried = tried or [(one, [""]) for one in rows[:most]]
    grades = graded(environment, [(one.task, given) for one, given in tried])
    for (one, _), found in zip(tried, grades, strict=True):
        if what := _misjudged(one.task, found):
            trial.num_wrong += 1
            trial.faults.append(Fault(f"{one.place} {name}", what, "1 for gold, 0 for empty", REMEDY))
    return trial


def _misjudged(task: Task, grades: Sequence[Grade]) -> str | None:
    """What is wrong with the grades of a gold answer, if there is one, and an empty one."""
    *golden, empty = grades
    if error := next((grade.error for grade in grades if grade.error), None):
        return f"the grader failed: {error}"
    beaten = task.domain == "chat" and all(gold.reward > empty.reward for gold in golden)
    if beaten or (empty.reward <= WRONG and all(gold.reward >= RIGHT for gold in golden)):
        return None
    words = "".join(f"the gold answer grades {gold.reward:.3g}, " for gold in golden)
    return f"{words}an empty one {empty.reward:.3g}"
