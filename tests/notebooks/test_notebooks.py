"""The notebooks run without a person: on run folders, and against a cluster's API."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
from support.example_run import BASE, SFT, ExampleRun, recipe
from support.kubeflow_stub import Kubeflow, serving

from kascade.recipe.run_recipe import read_run_recipe
from kascade.recipe.schema import Tracking
from kascade.storage.run_folder import RunFolder
from kascade.tracking.curves import pipeline_run
from kascade.tracking.mlflow_server import connect
from kascade.tracking.mlflow_sync import sync, tracking_id

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_no_outputs_and_no_paths_of_a_machine_are_committed() -> None:
    assert len(NOTEBOOKS) == 3
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text())["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
        assert sum("parameters" in cell["metadata"].get("tags", ()) for cell in code) == 1


def execute(name: str, out: Path, **parameters: Any) -> str:
    """Everything that the notebook printed."""
    import papermill

    path = next(path for path in NOTEBOOKS if path.name.startswith(name))
    done = papermill.execute_notebook(
        str(path), str(out), parameters, progress_bar=False, cwd=str(out.parent)
    )
    outputs = [output for cell in done.cells for output in cell.get("outputs", ())]
    assert name == "1" or any("image/png" in output.get("data", {}) for output in outputs)
    return "".join(output.get("text", "") for output in outputs)


def finished_run(folder: Path, recovered: float, uri: str | None = None) -> Path:
    tracked = recipe(("sft", "if_rl")).model_copy(update={"tracking": Tracking(uri=uri)})
    run = ExampleRun(folder, tracked, tasks=60)
    run.base(BASE)
    run.stage("sft", SFT)
    run.stage("if_rl", {"ifeval": 0.95, "mcqa": 0.1}, recoveries=({"mcqa": recovered},))
    return folder


@pytest.mark.slow
def test_an_experiment_is_submitted_to_a_cluster_and_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow = Kubeflow(next_story=[{"state": "RUNNING"}, {"state": "SUCCEEDED"}])
    monkeypatch.setenv("KASCADE_KFP_TOKEN", kubeflow.token)
    with serving(kubeflow) as host:
        said = execute("1", tmp_path / "1.ipynb", HOST=host, PIPELINE="experiment", EVERY_S=0.1)
    assert f"{host}/#/runs/details/" in said
    assert "succeeded" in said
    assert [one["display_name"] for one in kubeflow.pipelines] == ["experiment"]


RECIPE = """
kascade: 1
name: small
model: {source: builtin://mini-nemotron-h}
threads: 1
stages:
  - kind: sft
    name: first
    steps: 3
    batch_size: 8
    data: [{source: {environment: mcqa, count: 40}}]
benchmarks: [{name: knowledge, source: {environment: mcqa}, tasks: 8, sampling: {max_new_tokens: 12}}]
guard: {screen_samples: 1, confirm_samples: 2, recovery: {rounds: 0}, weak_exams: warn}
"""


@pytest.mark.slow
def test_an_experiment_runs_on_this_machine_and_is_watched(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(RECIPE)
    how: dict[str, Any] = {"RECIPE": "small.yaml", "OVERRIDES": {"first": {"steps": 2}}, "SEED": 4}
    said = execute("1", tmp_path / "1.ipynb", **how, OUT="runs/mine")
    folder = tmp_path / "runs" / "mine"
    assert "first                    from base             2 steps on mcqa" in said
    assert "1 · SFT  training" in said  # a line for every step, while it runs
    assert (folder / "report.html").as_uri() in said
    assert "1 · SFT (first): accepted" in said
    resolved = json.loads((folder / "recipe.resolved.json").read_text())
    assert (resolved["seed"], resolved["stages"][0]["steps"]) == (4, 2)


@pytest.mark.slow
def test_two_runs_are_compared_by_a_tracking_server_alone(tmp_path: Path) -> None:
    """As on a cluster whose volume is not here: both runs lie in one MLflow."""
    uri = f"sqlite:///{tmp_path / 'shared.db'}"
    ids = {}
    for label, recovered in (("weak", 0.3), ("strong", 0.5)):
        folder = finished_run(tmp_path / label, recovered, uri)
        tracked = read_run_recipe(folder)
        sync(folder, tracked)
        with connect(uri) as client:
            ids[label] = pipeline_run(client, "kascade", tracking_id(RunFolder(folder))).info.run_id
    for folder in ("weak", "strong"):
        shutil.rmtree(tmp_path / folder)
    said = execute("2", tmp_path / "2.ipynb", RUNS=ids, TRACKING_URI=uri)
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert rows["benchmark"][1:] == ["weak", "strong", "difference"]
    assert float(rows["mcqa"][2]) > float(rows["mcqa"][1])


@pytest.mark.slow
def test_runs_of_other_exams_are_said_to_be_so(tmp_path: Path) -> None:
    runs = {}
    for label, tasks in (("few", 40), ("many", 60)):
        tracked = recipe(("sft",)).model_copy(update={"tracking": Tracking()})
        run = ExampleRun(tmp_path / label, tracked, tasks=tasks)
        run.base(BASE)
        run.stage("sft", SFT)
        runs[label] = str(run.root)
    said = execute("2", tmp_path / "2.ipynb", RUNS=runs)
    assert "mcqa                 the runs asked different tasks" in said


@pytest.mark.slow
def test_two_runs_are_compared_and_a_regression_is_shown(tmp_path: Path) -> None:
    runs = {"weak": finished_run(tmp_path / "weak", 0.3), "strong": finished_run(tmp_path / "strong", 0.5)}
    said = execute("2", tmp_path / "2.ipynb", RUNS={label: str(path) for label, path in runs.items()})
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert rows["benchmark"][1:] == ["weak", "strong", "difference"]
    assert "mcqa" in rows
    said = execute("3", tmp_path / "3.ipynb", RUN=str(runs["strong"]))
    assert "mcqa fell from" in said
    assert "outcome: recovered" in said
    assert "recover-1" in said
