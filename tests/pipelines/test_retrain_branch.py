"""A pipeline that is started again and again: with nothing new it ends after two light steps."""

from __future__ import annotations

import io

from rich.console import Console
from toy_recipe import toy_recipe
from toy_run import ToyRun
from toy_steps import TOY_STEPS

from kascade.recipe.retrain import Retrain
from pipelines.local import run_local

PLAIN = toy_recipe({"name": "a"}, rounds=0)
AGAIN = PLAIN.model_copy(update={"retrain": Retrain()})


def test_with_nothing_new_no_model_is_touched_and_the_run_succeeds(toy_run: ToyRun) -> None:
    toy_run.script()
    said = io.StringIO()
    result = run_local(AGAIN, toy_run.root, steps=TOY_STEPS, console=Console(file=said))
    assert (result.status, result.exit_code, result.final_checkpoint) == ("succeeded", 0, None)
    assert toy_run.steps() == ["consider", "unchanged", "report"]
    assert "Nothing was trained. Nothing changed." in said.getvalue()


def test_with_something_new_the_cascade_runs_and_a_later_quiet_run_keeps_its_result(toy_run: ToyRun) -> None:
    toy_run.script(news=["Rows changed: a 0: rows.jsonl."])
    first = run_local(AGAIN, toy_run.root, quiet=True, steps=TOY_STEPS)
    assert first.status == "succeeded" and first.final_checkpoint
    assert toy_run.steps()[:2] == ["consider", "preflight"] and "unchanged" not in toy_run.steps()
    toy_run.script()
    second = run_local(AGAIN, toy_run.root, quiet=True, steps=TOY_STEPS)
    assert second.final_checkpoint == first.final_checkpoint
    assert toy_run.steps()[-3:] == ["consider", "unchanged", "report"]


def test_the_champion_is_looked_at_again_where_the_recipe_asks(toy_run: ToyRun) -> None:
    toy_run.script()
    asked = PLAIN.model_copy(update={"retrain": Retrain(champion=True)})
    assert run_local(asked, toy_run.root, quiet=True, steps=TOY_STEPS).status == "succeeded"
    assert toy_run.steps() == ["consider", "examine", "unchanged", "report"]
