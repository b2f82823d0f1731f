from collections import Counter

import pytest

from kascade.errors import UserError
from kascade.recipe.schema import DataSource, Mix
from kascade.rollout.pools import TaskPool, source_tasks
from kascade.task import Task, split_of


def tasks_of(kind: str, count: int) -> tuple[Task, ...]:
    return tuple(Task(kind, "math", ({"role": "user", "content": str(i)},), {}) for i in range(count))


POOL = TaskPool((tasks_of("a", 50), tasks_of("b", 20), tasks_of("c", 7)), (0.55, 0.3, 0.15), seed=4)


def test_a_draw_depends_on_its_position_only() -> None:
    whole = POOL.take(0, 240)
    assert [task for step in range(10) for task in POOL.draw(step, 24)] == whole
    assert POOL.take(100, 5) == whole[100:105]
    again = TaskPool(POOL.sources, POOL.weights, seed=4)
    assert again.draw(7, 24) == POOL.draw(7, 24)
    assert TaskPool(POOL.sources, POOL.weights, seed=5).draw(7, 24) != POOL.draw(7, 24)


def test_every_step_has_the_shares_of_the_mix() -> None:
    for step in range(20):
        counts = Counter(task.environment for task in POOL.draw(step, 40))
        for kind, share in zip("abc", POOL.weights, strict=True):
            assert abs(counts[kind] - 40 * share) <= 3


def test_no_task_repeats_within_an_epoch_and_epochs_differ_in_order() -> None:
    drawn = [task for task in POOL.take(0, 600) if task.environment == "b"]
    first, second = drawn[:20], drawn[20:40]
    assert len({task.id for task in first}) == len({task.id for task in second}) == 20
    assert first != second


def test_splits_of_a_generated_source_are_disjoint() -> None:
    source = DataSource(environment="mcqa", count=30)
    train, test = (
        source_tasks(source, split="train", seed=1),
        source_tasks(source, split="test", seed=1, count=10),
    )
    assert (len(train), len(test)) == (30, 10)
    assert {split_of(task.id) for task in train} == {"train"} and {split_of(task.id) for task in test} == {
        "test"
    }
    assert source_tasks(source, split="train", seed=1) == train


def test_the_faults_of_all_sources_come_at_once() -> None:
    mixes = [Mix(source=DataSource(environment="mcqa", path=f"/nowhere/{name}.jsonl")) for name in "xy"]
    with pytest.raises(UserError) as caught:
        TaskPool.from_mixes(mixes, split="train", seed=0)
    assert [fault.where for fault in caught.value.faults] == ["/nowhere/x.jsonl", "/nowhere/y.jsonl"]
    with pytest.raises(ValueError, match="at least one source"):
        TaskPool((), (), 0)
