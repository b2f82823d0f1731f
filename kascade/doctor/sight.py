"""Checks of what benchmarks can see."""

from __future__ import annotations

from kascade.doctor.subject import NotChecked, Subject
from kascade.environments import domain_of
from kascade.errors import Fault
from kascade.guard.blindness import blindness
from kascade.guard.lineage import read_outcomes
from kascade.guard.power import VisibleFall, visible_falls, weak_exams
from kascade.guard.scores import Score, read_scores
from kascade.recipe.checks import BASE
from kascade.recipe.schema import Recipe
from kascade.stages.tasks import NOTHING_TO_TRAIN_ON, TASKS_FOR_RECOVERY, sources_by_domain
from kascade.storage.run_folder import RunFolder


def sizes(subject: Subject) -> list[Fault]:
    """Benchmarks with too few tasks to see the drop that the recipe's guard asks for."""
    return weak_exams(as_asked(subject))


def falls_of(subject: Subject) -> dict[str, VisibleFall]:
    """Which falls each benchmark can show."""
    return visible_falls(as_asked(subject))


def as_asked(subject: Subject) -> Recipe:
    """The recipe with as many tasks per benchmark as there are rows: one of 200 tasks may have 3 only."""
    found = []
    for benchmark in subject.recipe.benchmarks:
        rows = subject.exams.get(benchmark.name) if benchmark.source.path is not None else None
        number = benchmark.tasks if rows is None else len(rows)
        found.append(benchmark.model_copy(update={"tasks": number}))
    return subject.recipe.model_copy(update={"benchmarks": tuple(found)})


def only_warned(subject: Subject) -> bool:
    """Whether weak benchmarks may pass: the recipe says so, or stages of this run have ended with them."""
    begun = subject.out is not None and bool(read_outcomes(RunFolder.tolerant(subject.out)))
    return begun or subject.recipe.guard.weak_exams == "warn"


def unrecoverable(subject: Subject) -> list[Fault]:
    """Benchmarks whose loss no recovery could train away, because there is nothing to train on."""
    recipe = subject.recipe
    if not recipe.guard.recovery.rounds and recipe.guard.retention.on_loss != "recover":
        return []
    try:
        trainable = sources_by_domain(recipe, recipe.stages)
        lacking = [one.name for one in recipe.benchmarks if domain_of(one.source) not in trainable]
    except ValueError as error:  # of an environment's options, which their own check names
        raise NotChecked("an environment has wrong options") from error
    what = f"a loss could not be recovered: {NOTHING_TO_TRAIN_ON}"
    remedy = f"{TASKS_FOR_RECOVERY}, or leave it: `guard.unrecovered` then says what follows a loss"
    return [Fault(f"benchmark {name}", what, remedy=remedy) for name in lacking]


def base_scores(subject: Subject) -> list[Fault]:
    """Benchmarks that the base model answers all right or all wrong, by an earlier run in the same folder."""
    scores = _base_scores(subject)
    if not scores:
        raise NotChecked("the base model has no scores yet")
    remedy = "take harder or easier tasks, or another way to grade them"
    return [
        Fault(f"benchmark {score.benchmark}", problem, remedy=remedy)
        for score in scores
        if (problem := blindness(score))
    ]


def _base_scores(subject: Subject) -> list[Score]:
    """What earlier runs in the same folder scored on the base model."""
    if subject.out is None:
        return []
    folder = RunFolder.tolerant(subject.out)
    names = {benchmark.name for benchmark in subject.recipe.benchmarks}
    found: list[Score] = []
    for ref, manifest in folder.checkpoints():
        if manifest.stage == BASE:
            scores = read_scores(folder, ref.digest, "screen")
            found += [score for name, score in scores.items() if name in names]
    return found
