"""The whole cascade through the real pipeline: killed in the middle, resumed, reported, tracked."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kascade.guard.lineage import read_outcomes
from kascade.recipe.load import load_recipe
from kascade.storage.checkpoint import verify
from kascade.storage.run_folder import RunFolder
from kascade.tracking.mlflow_query import best_checkpoints

RECIPE = "quickstart-short"
DEADLINE_S = 420


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kascade.cli", "run", RECIPE, "--out", str(folder), "--quiet"]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def kill_tree(process: subprocess.Popen[str]) -> None:
    """kill -9 of the process and of everything it started."""
    parent = psutil.Process(process.pid)
    family = [parent, *parent.children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended on its own in the meantime
            member.kill()
    psutil.wait_procs(family, timeout=20)
    process.wait()


def kill_after_first_stage(folder: Path) -> None:
    process = start(folder)
    deadline = time.monotonic() + DEADLINE_S
    while not list((folder / "outcomes").glob("sft-*.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the first stage did not end"
        time.sleep(0.2)
    time.sleep(random.uniform(0.0, 8.0))  # anywhere in the stages that follow
    kill_tree(process)


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_killed_cascade_is_finished_by_the_same_command(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kill_after_first_stage(folder)
    finished = times(folder / "checkpoints" / "sft") | times(folder / "checkpoints" / "base")
    process = start(folder)
    output = process.communicate(timeout=DEADLINE_S)[0]
    assert process.returncode == 0, output
    after = times(folder / "checkpoints")
    assert {path: after[path] for path in finished} == finished

    layout, recipe = RunFolder(folder), load_recipe(RECIPE)
    outcomes = {outcome.stage: outcome for outcome in read_outcomes(layout)}
    assert list(outcomes) == [stage.name for stage in recipe.stages]
    for earlier, later in zip(recipe.stages, recipe.stages[1:], strict=False):
        accepted = outcomes[earlier.name].accepted
        assert outcomes[later.name].parent == accepted
        assert verify(outcomes[later.name].candidate)[1].parent is not None
        first = json.loads(
            next((folder / "checkpoints" / later.name).glob("train-*/manifest.json")).read_text()
        )
        assert first["parent"] == accepted  # the next stage loaded what was accepted

    page = layout.report.read_text(encoding="utf-8")
    assert all(benchmark.name in page for benchmark in recipe.benchmarks)
    assert layout.model_card.exists()
    assert len(best_checkpoints(folder)) == len(recipe.benchmarks)
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())
    ]
