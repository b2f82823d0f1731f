"""Whole runs of toy steps in processes of their own: branches, failures, interruptions, resuming."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from toy_recipe import toy_recipe
from toy_run import HERE, ToyRun
from toy_steps import TOY_STEPS

from kascade.errors import UserError
from kascade.recipe.schema import Recipe
from kascade.storage.run_folder import RunFolder
from pipelines.local import RunResult, run_local, task_environment

ONE = toy_recipe({"name": "a"}, rounds=0)
ONE_RECOVERY = toy_recipe({"name": "a"}, rounds=1)
TWO = toy_recipe({"name": "a"}, {"name": "b"})
LIGHT = {
    "preflight",
    "report",
    "retain.begin",
    *(f"{s}.{step}" for s in "ab" for step in ("begin", "train.verdict", "settle")),
}
FORM = """
import sys; from pathlib import Path; from kfp import components, local
from toy_steps import TOY_STEPS; from pipelines.compile import compile_recipe; import test_local
run = Path(sys.argv[1])
package = compile_recipe(test_local.TWO, run / "pipeline.yaml", steps=TOY_STEPS)
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(run / "kfp"))
components.load_component_from_file(str(package))(run=str(run), stage_1_a=False)
"""
DRIVER = """
import sys; from pathlib import Path
import test_local; from toy_run import HERE, ToyRun
from toy_steps import TOY_STEPS; from pipelines.local import run_local
recipe = getattr(test_local, sys.argv[2])
sys.exit(run_local(recipe, Path(sys.argv[1]), quiet=True, steps=TOY_STEPS).exit_code)
"""


def go(run: ToyRun, recipe: Recipe = TWO) -> RunResult:
    return run_local(recipe, run.root, quiet=True, steps=TOY_STEPS)


def test_recovered_once_then_twice(toy_run: ToyRun) -> None:
    """Stage a comes back in the first round, b in the second."""
    toy_run.script(regressed=["a.train", "b.train", "b.recover-1"])
    result = go(toy_run)
    assert result.status == "succeeded" and result.exit_code == 0
    assert toy_run.call("a.settle")["accepted"] == "a/recover-1"
    assert toy_run.call("b.train")["parent"] == "a/recover-1"
    assert toy_run.call("b.recover-2")["checkpoint"] == "b/recover-1"
    assert toy_run.call("b.settle") == {
        "step": "b.settle",
        "accepted": "b/recover-2",
        "parent": "a/recover-1",
    }
    assert "a.recover-2" not in toy_run.steps()
    assert result.final_checkpoint is not None and "b/recover-2@sha256:" in result.final_checkpoint
    assert result.report == toy_run.root / "report.html"


def test_what_held_is_not_recovered(toy_run: ToyRun) -> None:
    """Every step once: beside the verdict and the beginning, which say what was done."""
    toy_run.script()
    assert go(toy_run, ONE_RECOVERY).status == "succeeded"
    heavy = ["base.train.evaluate", "a.train", "a.train.evaluate"]
    assert sorted(toy_run.steps()) == sorted([*heavy, *(LIGHT - {"b.begin", "b.train.verdict", "b.settle"})])


def test_what_stays_lost_is_settled_from_its_last_recovery(toy_run: ToyRun) -> None:
    toy_run.script(regressed=["a.train", "a.recover-1", "a.recover-2"])
    assert go(toy_run, toy_recipe({"name": "a"})).status == "succeeded"
    assert toy_run.steps().count("a.recover-2") == 1
    assert toy_run.call("a.settle")["accepted"] == "a/recover-2"


def test_the_guard_stops_the_cascade_and_the_report_is_written(toy_run: ToyRun) -> None:
    toy_run.script(regressed=["a.train"], fail={"a.settle": "stop"})
    result = go(toy_run, TWO)
    assert (result.status, result.failed_step, result.exit_code) == ("failed", "a.settle", 3)
    assert not [step for step in toy_run.steps() if step.startswith("b.")]
    assert toy_run.steps()[-1] == "report" and result.report is not None


def test_a_stage_that_the_form_switches_off_hands_on_what_it_was_given(toy_run: ToyRun) -> None:
    toy_run.script()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    subprocess.run([sys.executable, "-c", FORM, str(toy_run.root)], check=True, env=environment)
    assert [step for step in toy_run.steps() if step.startswith("a.")] == ["a.begin", "a.skip", "a.settle"]
    assert toy_run.call("a.settle")["accepted"] == "base/train" == toy_run.call("b.train")["parent"]


def test_a_side_branch_is_trained_beside_the_main_line(
    toy_run: ToyRun, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = toy_recipe(
        {"name": "a"},
        {"name": "side", "side_branch": True},
        {"name": "b", "parent": "a"},
        {"name": "c", "parent": "side"},
        rounds=0,
    )
    result = run_local(recipe, toy_run.root, steps=TOY_STEPS)
    assert toy_run.call("side.train")["parent"] == "a/train"
    assert toy_run.call("b.train")["parent"] == "a/train"
    assert toy_run.call("c.train")["parent"] == "side/train"
    assert result.final_checkpoint is not None and "/c/train@" in result.final_checkpoint
    told = capfd.readouterr().err
    assert "2 · SFT  training" in told and "KFP" not in told


def test_the_tasks_own_error_surfaces_and_the_rerun_goes_on(
    toy_run: ToyRun, capfd: pytest.CaptureFixture[str]
) -> None:
    toy_run.script(fail={"b.train": "user"})
    result = go(toy_run)
    assert (result.status, result.failed_step, result.exit_code) == ("failed", "b.train", 2)
    assert result.error is not None
    assert result.error["faults"][0]["where"] == "data.jsonl:3" and result.error["type"] == "UserError"
    assert "data.jsonl:3: is not JSON" in capfd.readouterr().err
    layout = RunFolder(toy_run.root)
    assert "Traceback" in layout.log("b.train").read_text() and "hello" in layout.log("b.train").read_text()
    before = toy_run.steps()

    toy_run.script()
    assert go(toy_run).status == "succeeded"
    again = toy_run.steps()[len(before) :]
    assert [step for step in again if step not in LIGHT] == ["b.train", "b.train.evaluate"]
    assert not layout.step_error("b.train").exists()


@pytest.mark.parametrize(
    ("kind", "exit_code", "error"), [("stop", 3, "GuardStop"), ("killed", 1, "ProcessDied")]
)
def test_other_ways_to_fail(toy_run: ToyRun, kind: str, exit_code: int, error: str) -> None:
    toy_run.script(fail={"preflight": kind})
    result = go(toy_run)
    assert (result.failed_step, result.exit_code) == ("preflight", exit_code)
    assert result.error is not None and result.error["type"] == error
    assert result.report == toy_run.root / "report.html"  # what there is to say is said all the same


def test_a_vanished_checkpoint_is_made_again(toy_run: ToyRun) -> None:
    toy_run.script()
    go(toy_run, ONE)
    before = toy_run.steps()
    shutil.rmtree(toy_run.root / "checkpoints" / "a" / "train")
    assert go(toy_run, ONE).status == "succeeded"
    assert "a.train" in toy_run.steps()[len(before) :]
    assert (toy_run.root / "checkpoints" / "a" / "train" / "weights.txt").exists()


@contextmanager
def hanging_in(
    step: str, run: ToyRun, recipe: str
) -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    """A run in which `step` hangs: the process that started it, and all processes below."""
    run.script(hang=[step])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    starter = subprocess.Popen([sys.executable, "-c", DRIVER, str(run.root), recipe], env=environment)
    try:
        deadline = time.monotonic() + 60
        while step not in run.steps():
            assert starter.poll() is None and time.monotonic() < deadline, f"the run did not get to {step}"
            time.sleep(0.05)
        while not (family := below(starter)) or family[-1].name() != "sleep":
            time.sleep(0.05)
        yield starter, family
    finally:
        starter.kill()
        starter.wait()


def below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return sorted(psutil.Process(process.pid).children(recursive=True), key=lambda child: child.create_time())


def assert_all_gone(family: list[psutil.Process]) -> None:
    def alive(process: psutil.Process) -> bool:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE

    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        left = []
        for process in family:
            try:
                left += [process] if alive(process) else []
            except psutil.NoSuchProcess:
                continue
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(f"still there: {left}")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, None), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_no_process_outlives_the_run(toy_run: ToyRun, number: int, code: int | None) -> None:
    """Ctrl-C, SIGTERM and even kill -9 of the starting process alone end the training too."""
    with hanging_in("preflight", toy_run, "ONE") as (starter, family):
        starter.send_signal(number)
        returned = starter.wait(15)
        assert_all_gone(family)
        assert returned != 0 and (code is None or returned == code)


def test_a_killed_runner_takes_its_tasks_along_and_is_reported(toy_run: ToyRun) -> None:
    with hanging_in("preflight", toy_run, "ONE") as (starter, family):
        family[0].kill()  # kfp.local's process; the one that started it lives
        assert starter.wait(15) == 1
        assert_all_gone(family)


def test_killed_as_a_tree_the_same_command_resumes(toy_run: ToyRun) -> None:
    with hanging_in("b.train", toy_run, "TWO") as (starter, family):
        for process in [psutil.Process(starter.pid), *family]:
            process.kill()
        starter.wait(15)
        assert_all_gone(family)
    before, weights = toy_run.steps(), toy_run.root / "checkpoints" / "a" / "train" / "weights.txt"
    written = weights.stat().st_mtime_ns
    toy_run.script()
    assert go(toy_run).status == "succeeded"
    again = toy_run.steps()[len(before) :]
    assert [step for step in again if step not in LIGHT] == ["b.train", "b.train.evaluate"]
    assert weights.stat().st_mtime_ns == written


def test_one_run_a_folder(toy_run: ToyRun) -> None:
    with hanging_in("preflight", toy_run, "ONE") as (starter, _), pytest.raises(UserError) as caught:
        go(toy_run)
    assert f"process {starter.pid}" in str(caught.value)


def test_names_that_the_runner_would_garble_are_refused(tmp_path: Path) -> None:
    recipe = toy_recipe({"name": "python3-sft"})
    with pytest.raises(UserError) as caught:
        run_local(recipe, tmp_path / "python3.11", steps=TOY_STEPS)
    assert len(caught.value.faults) == 2
    assert not (tmp_path / "python3.11").exists()


@pytest.mark.parametrize(("source", "offline"), [("builtin://mini-nemotron-h", "1"), ("owner/model", None)])
def test_tasks_do_not_spin_and_a_local_model_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, offline: str | None
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("PYTHONPATH", "/theirs")
    recipe = TWO.model_copy(update={"model": TWO.model.model_copy(update={"source": source})})
    environment = task_environment(recipe, tmp_path)
    assert environment.get("HF_HUB_OFFLINE") == offline
    assert environment["KMP_BLOCKTIME"] == "0"
    assert environment["OMP_WAIT_POLICY"] == "ACTIVE"  # the user's own word counts
    assert environment["PYTHONPATH"].split(os.pathsep) == [str(HERE.parents[1]), "/theirs"]
