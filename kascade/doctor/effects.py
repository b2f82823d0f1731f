"""What a recipe does otherwise than it reads: fewer tasks than are asked, and fewer processes."""

from __future__ import annotations

from kascade.doctor.subject import NotChecked, Subject
from kascade.errors import Fault
from kascade.recipe.groups import trainers_of
from kascade.recipe.recovering import recovery_workers
from kascade.recipe.workers import half_each
from kascade.tracking.wording import count


def fewer_tasks(subject: Subject) -> list[Fault]:
    """Benchmarks that ask fewer tasks than `tasks` says, because there are no more rows for them."""
    if not any(isinstance(tasks, list) for _, tasks in subject.rows):
        raise NotChecked("no rows are at hand to count")
    held = {
        name: len(tasks) for one, tasks in subject.rows if isinstance(tasks, list) for name in one.benchmarks
    }
    found = []
    for index, benchmark in enumerate(subject.recipe.benchmarks):
        source, asked = benchmark.source, len(subject.exams.get(benchmark.name, ()))
        if benchmark.name not in held or not 0 < asked < benchmark.tasks:
            continue
        what = f"asks {count(asked, 'task')}, not {benchmark.tasks}: {source.path} has no more"
        remedy = "give more rows"
        if source.hold_out and asked < held[benchmark.name]:
            rows = count(held[benchmark.name], "different row")
            what += (
                f" in its test split. Its {rows} are split by hash: 80 / 10 / 10 % for training, validation "
                "and test"
            )
            remedy += "; or set hold_out: false, which asks all of them, where no stage learns from this file"
        place = subject.place("benchmarks", index, "tasks")
        found.append(Fault(f"{place} ({benchmark.name})", what, remedy=remedy))
    return found


def alone(subject: Subject) -> list[Fault]:
    """Stages that several processes train, and one recovers."""
    recipe = subject.recipe
    if not recipe.guard.recovery.rounds:
        return []
    found = []
    for index, stage in enumerate(recipe.stages):
        processes = trainers_of(recipe, stage)
        if processes > 1 and not recovery_workers(recipe, stage).distributed:
            what = (
                f"{processes} processes train {stage.name!r}, and one recovers it: a recovery draws answers, "
                "which processes of one torchrun do not"
            )
            remedy = f"name actors that recover it as guard.recovery.workers, such as {half_each(processes)}"
            found.append(Fault(subject.place("stages", index), what, remedy=remedy))
    return found
