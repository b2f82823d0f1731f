"""The compiled shape of a recipe that trains only when something changed, and of one that does not ask."""

from __future__ import annotations

from pathlib import Path

import pytest
from backend_inputs import refused
from backend_model import Execution, Story, counts, executions
from compiled import Spec, compiled
from toy_recipe import toy_recipe

from kascade.recipe.retrain import Retrain

PLAIN = toy_recipe({"name": "a"}, {"name": "b"})
QUIET, NEW = "Nothing changed", "Something changed"


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return compiled(PLAIN.model_copy(update={"retrain": Retrain()}), tmp_path_factory.mktemp("again"))


def ended(spec: Spec, *taken: str) -> Execution:
    story = Story(spec, lambda stage, title: title in taken, frozenset())
    return story.run(spec["root"]["dag"]["tasks"]["exit-handler-1"])


def test_with_nothing_new_the_dag_is_complete_after_two_light_containers(again: Spec) -> None:
    root = ended(again, QUIET)
    assert root.state == "COMPLETE"
    ran = {one.title for one in executions(root) if not one.is_dag and one.state == "COMPLETE"}
    assert ran == {"Anything new?", "Why"}
    assert counts(root).pods <= 8, "drivers included: a minute, without an accelerator"


def test_the_driver_finds_every_input(again: Spec) -> None:
    assert refused(again) == []


def test_with_something_new_the_whole_cascade_is_complete(again: Spec) -> None:
    root = ended(again, NEW, "Train and guard", "Check")
    assert root.state == "COMPLETE"
    assert "Finish" in {one.title for one in executions(root)}


def test_a_recipe_that_does_not_ask_has_no_such_step(tmp_path: Path) -> None:
    plain = compiled(PLAIN, tmp_path)
    assert not {"Anything new?", QUIET, NEW} & {one.title for one in executions(ended(plain, "Check"))}
