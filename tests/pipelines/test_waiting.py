"""Runs that end before their end: over the budget, waiting for a person, rejected. And how they go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from toy_recipe import toy_recipe
from toy_run import HERE, ToyRun
from toy_steps import TOY_STEPS
from typer.testing import CliRunner

from kascade.cli import app
from kascade.guard.approval import questions, read_waiting
from kascade.recipe.schema import Recipe
from kascade.storage.run_folder import RunFolder
from pipelines.local import WAITS, RunResult, run_local

THOUSAND_HOURS = 3.6e6  # seconds, far beyond the plan: it then expects as much of what is left
STAGES = ({"name": "a"}, {"name": "b"})
FORM = """
import sys; from pathlib import Path; from kfp import components, local
from toy_steps import TOY_STEPS; from pipelines.compile import compile_recipe
from kascade.recipe.run_recipe import read_run_recipe
run = Path(sys.argv[1])
package = compile_recipe(read_run_recipe(run), run / "pipeline.yaml", steps=TOY_STEPS)
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(run / "kfp"))
components.load_component_from_file(str(package))(run=str(run), approve=sys.argv[2])
"""


def recipe(rounds: int = 1, **parts: object) -> Recipe:
    plain = toy_recipe(*STAGES, rounds=rounds).model_dump(mode="json")
    return Recipe.model_validate({**plain, **parts})


def go(run: ToyRun, wanted: Recipe) -> RunResult:
    return run_local(wanted, run.root, quiet=True, steps=TOY_STEPS)


def heavy(run: ToyRun) -> list[str]:
    return [step for step in run.steps() if step.rpartition(".")[2] in ("train", "recover-1")]


def budget(hours: float) -> Recipe:
    return recipe(budget={"cpu_hours": hours})


def test_a_stage_that_the_budget_does_not_reach_for_does_not_begin(toy_run: ToyRun) -> None:
    """The run ends without an error, and a larger budget goes on where it stopped."""
    toy_run.script(costs={"a.train": THOUSAND_HOURS})
    result = go(toy_run, budget(1500))
    assert (result.status, result.exit_code, result.error) == ("budget reached", WAITS, None)
    assert result.waiting is not None and result.waiting.before == "b"
    assert "1,000.00 CPU hours are used" in result.waiting.sentence
    assert heavy(toy_run) == ["a.train"] and result.final_checkpoint is None
    assert "b.skip" in toy_run.steps() and "retain.skip" in toy_run.steps()
    assert "report" in toy_run.steps()

    again = go(toy_run, budget(1e9))
    assert again.status == "succeeded" and heavy(toy_run) == ["a.train", "b.train"]
    assert read_waiting(RunFolder(toy_run.root)) is None


def test_a_recovery_is_held_up_like_a_stage(toy_run: ToyRun) -> None:
    toy_run.script(costs={"a.train.evaluate": THOUSAND_HOURS}, regressed=["a.train"])
    result = go(toy_run, budget(1010))
    assert result.waiting is not None and result.waiting.before == "a.recover-1"
    assert toy_run.call("a.settle")["accepted"] == "base/train"  # it is not settled: nothing goes on from it
    assert heavy(toy_run) == ["a.train"]

    toy_run.script(regressed=["a.train"])
    assert go(toy_run, budget(1e9)).status == "succeeded"
    assert heavy(toy_run) == ["a.train", "a.recover-1", "b.train"]
    assert toy_run.call("b.train")["parent"] == "a/recover-1"


def test_the_end_check_waits_for_money_and_a_stage_for_a_person(toy_run: ToyRun) -> None:
    """Approval and budget belong to the folder: a new run of it counts what was spent and keeps answers."""
    asking = {"approval": {"before": ["b"]}, "budget": {"cpu_hours": 1500.0}}
    toy_run.script(costs={"b.train": THOUSAND_HOURS})
    result = go(toy_run, recipe(**asking))
    assert (result.status, result.exit_code) == ("waiting for approval", WAITS)
    assert heavy(toy_run) == ["a.train"]
    runner, folder = CliRunner(), str(toy_run.root)
    assert "waiting for approval: b waits" in runner.invoke(app, ["watch", folder]).stdout

    told = runner.invoke(app, ["approve", folder, "--by", "anna", "--only-record"])
    assert told.exit_code == 0 and "approved: b" in told.stdout
    held = go(toy_run, recipe(**asking))
    assert held.waiting is not None and (held.status, held.waiting.before) == ("budget reached", "retain")
    assert heavy(toy_run) == ["a.train", "b.train"] and held.final_checkpoint is None

    done = go(toy_run, recipe(approval={"before": ["b"]}, budget={"cpu_hours": 1e9}))
    assert done.final_checkpoint is not None and "/b/train@" in done.final_checkpoint
    (question,) = questions(RunFolder(toy_run.root))  # nobody is asked twice about the same checkpoint
    assert [said.by for said in question.decisions] == ["anna"]


def test_a_rejected_run_ends_until_somebody_changes_their_mind(toy_run: ToyRun) -> None:
    """On Kubeflow's page a person starts a run of the same folder, with names under `approve`."""
    asking = recipe(approval={"before": ["b"]})
    toy_run.script()
    go(toy_run, asking)
    told = CliRunner().invoke(app, ["reject", str(toy_run.root), "--by", "anna", "--reason", "too slow"])
    page = Path(toy_run.root, "report.html").read_text()
    assert told.exit_code == 0 and "Rejected: b was rejected by anna" in page and "too slow" in page
    result = go(toy_run, asking)
    assert (result.status, result.exit_code) == ("rejected", WAITS) and heavy(toy_run) == ["a.train"]

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    command = [sys.executable, "-c", FORM, str(toy_run.root), "b"]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    assert heavy(toy_run) == ["a.train", "b.train"]
    (question,) = questions(RunFolder(toy_run.root))
    assert [said.by for said in question.decisions] == ["anna", "the form"]
