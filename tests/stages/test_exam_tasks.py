"""Generated exams are kept in the run's folder and come back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_cascade import make_run, stage

from kascade.environments import BUILTIN
from kascade.exams.tasks import benchmark_tasks, exam_tasks
from kascade.recipe.schema import Benchmark, DataSource
from kascade.run.context import open_run


@pytest.mark.parametrize("environment", sorted(BUILTIN))
def test_kept_tasks_are_the_generated_ones(environment: str, tmp_path: Path) -> None:
    layout = make_run(tmp_path, stage("sft", "sft", "say_a"))
    benchmark = Benchmark(name="exam", source=DataSource(environment=environment), tasks=3)
    with open_run(str(layout.root), "preflight") as run:
        made = exam_tasks(run, benchmark)
        assert len(list(layout.exam_tasks("exam", "*").parent.iterdir())) == 1
        again = exam_tasks(run, benchmark)
    fresh = benchmark_tasks(benchmark, run.recipe.seed)
    assert made == again
    assert [task.id for task in made] == [task.id for task in fresh]
    for kept, own in zip(made, fresh, strict=True):
        assert (kept.reference, kept.thinking, kept.messages) == (own.reference, own.thinking, own.messages)
