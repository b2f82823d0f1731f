"""The compiled pipeline: its structure, its stable names, its size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from golden import golden, golden_path
from toy_recipe import toy_recipe

from components.image import IMAGE
from kascade.recipe.identity import fingerprint
from kascade.recipe.load import load_recipe
from kascade.recipe.schema import Recipe
from pipelines.canonical import canonicalise
from pipelines.cascade import build_cascade
from pipelines.compile import compile_recipe

ROOT = Path(__file__).resolve().parents[2]
EIGHT = [{"name": f"stage_{n}"} for n in range(8)]


def compiled(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The pipeline; its second document, what Kubernetes is told, under "platforms"."""
    text = compile_recipe(recipe, folder / "pipeline.yaml").read_text(encoding="utf-8")
    spec, pods = yaml.load_all(text, Loader=yaml.CSafeLoader)
    return {**spec, **pods}


def tasks_of(spec: dict[str, Any], task: dict[str, Any] | None = None) -> dict[str, Any]:
    """The tasks inside the cascade, or inside a task that is a DAG."""
    if task is None:
        task = spec["root"]["dag"]["tasks"]["exit-handler-1"]
    return dict(component_of(spec, task)["dag"]["tasks"])


def guarded(spec: dict[str, Any], stage: str) -> dict[str, Any]:
    """The tasks of a stage behind its switch."""
    switch = tasks_of(spec, tasks_of(spec)[stage])["condition-branches-1"]
    branches = [tasks_of(spec, task) for task in tasks_of(spec, switch).values()]
    (on,) = [tasks for tasks in branches if "keep" not in tasks]
    (whole,) = on.values()
    return tasks_of(spec, whole)


def component_of(spec: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    return dict(spec["components"][task["componentRef"]["name"]])


def constants(task: dict[str, Any]) -> dict[str, Any]:
    parameters = task["inputs"]["parameters"].items()
    return {name: p["runtimeValue"]["constant"] for name, p in parameters if "runtimeValue" in p}


def source_of(task: dict[str, Any], parameter: str) -> str:
    """Which task an input comes from; "" when it is handed in from outside."""
    given = task["inputs"]["parameters"][parameter]
    return str(given.get("taskOutputParameter", {}).get("producerTask", ""))


def test_a_person_reads_the_cascade(tmp_path: Path) -> None:
    recipe = toy_recipe({"name": "a"}, {"name": "b", "title": "Polish"})
    spec = compiled(recipe, tmp_path)
    whole = spec["root"]["dag"]["tasks"]
    assert {task["taskInfo"]["name"] for task in whole.values()} == {"Cascade", "Report"}
    assert {task["taskInfo"]["name"] for task in tasks_of(spec).values()} == {
        "Preflight",
        "Exams of the base model",
        "1 · SFT",
        "2 · Polish",
        "Finish",
    }


def test_a_guarded_stage_branches_on_the_verdict(tmp_path: Path) -> None:
    spec = compiled(toy_recipe({"name": "a"}, rounds=1), tmp_path)
    stage = guarded(spec, "stage-1-a")
    assert set(stage) == {"train", "evaluate", "verdict", "condition-branches-1", "settle"}
    assert "evaluate" in stage["verdict"]["dependentTasks"]
    branches = component_of(spec, stage["condition-branches-1"])["dag"]
    conditions = {task["triggerPolicy"]["condition"] for task in branches["tasks"].values()}
    regressed = "inputs.parameter_values['pipelinechannel--verdict-Output'] == true"
    assert conditions == {regressed, f"!({regressed})"}
    (chosen,) = branches["outputs"]["parameters"].values()
    assert len(chosen["valueFromOneof"]["parameterSelectors"]) == 2
    assert source_of(stage["settle"], "candidate") == "condition-branches-1"


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_as_many_recoveries_as_the_recipe_allows(tmp_path: Path, rounds: int) -> None:
    spec = compiled(toy_recipe({"name": "a"}, {"name": "b"}, rounds=rounds), tmp_path)
    labels = [component.get("executorLabel") for component in spec["components"].values()]
    assert labels.count("exec-recover") == 2 * rounds
    assert labels.count("exec-verdict") == 2 * (1 + rounds)  # every recovery is judged again
    assert labels.count("exec-settle") == 2


def test_the_next_stage_starts_from_what_was_settled(tmp_path: Path) -> None:
    tasks = tasks_of(compiled(toy_recipe({"name": "a"}, {"name": "b"}), tmp_path))
    assert source_of(tasks["stage-1-a"], "parent") == "preflight"
    assert "evaluate" in tasks["stage-1-a"]["dependentTasks"]
    assert source_of(tasks["stage-2-b"], "parent") == "stage-1-a"


def test_side_branches_and_named_parents(tmp_path: Path) -> None:
    recipe = toy_recipe(
        {"name": "a"}, {"name": "side", "side_branch": True}, {"name": "b"}, {"name": "c", "parent": "side"}
    )
    tasks = tasks_of(compiled(recipe, tmp_path))
    assert source_of(tasks["stage-2-side"], "parent") == "stage-1-a"
    assert source_of(tasks["stage-3-b"], "parent") == "stage-1-a"
    assert source_of(tasks["stage-4-c"], "parent") == "stage-2-side"
    assert {"stage-2-side", "stage-3-b", "stage-4-c"} <= set(tasks["finish"]["dependentTasks"])
    assert source_of(tasks["finish"], "checkpoint") == "stage-4-c"


def test_a_stage_waits_for_its_teachers(tmp_path: Path) -> None:
    """The multi-teacher stage of the preset learns from a side branch, which is not its parent."""
    spec = compiled(load_recipe("nemotron-cascade-2"), tmp_path)
    tasks = {task["taskInfo"]["name"]: task for task in tasks_of(spec).values()}
    side = next(name for name in tasks_of(spec) if "rlhf-teacher" in name)
    mopd = next(task for name, task in tasks.items() if "MOPD" in name)
    assert side in mopd["dependentTasks"]


def test_every_step_carries_its_fingerprint_and_the_forms_revision(tmp_path: Path) -> None:
    recipe = toy_recipe({"name": "a"}, {"name": "b"}, rounds=1)
    spec = compiled(recipe, tmp_path)
    found = set()
    for component in spec["components"].values():
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            label = component_of(spec, task).get("executorLabel")
            if label and label not in ("exec-keep", "exec-preflight", "exec-finish"):
                given = constants(task)
                own, _, revision = given["fingerprint"].partition(".")
                assert revision.startswith("{{$.inputs.parameters['pipelinechannel--"), name
                found.add((given.get("stage"), own))
    assert found == {(stage, fingerprint(recipe, stage)) for stage in ("base", "a", "b")}


def test_only_steps_that_are_functions_of_their_arguments_are_cached(tmp_path: Path) -> None:
    spec = compiled(toy_recipe({"name": "a"}), tmp_path)
    whole = {**spec["root"]["dag"]["tasks"], **tasks_of(spec)}
    cached = {name for name, task in whole.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert cached == {"evaluate", "stage-1-a"}


def test_bodies_are_thin_and_install_nothing(tmp_path: Path) -> None:
    spec = compiled(toy_recipe({"name": "a"}), tmp_path)
    for name, executor in spec["deploymentSpec"]["executors"].items():
        container = executor["container"]
        assert container["image"] == IMAGE
        assert "pip install" not in " ".join(container["command"]), name


def test_eight_stages_with_two_recoveries_stay_small(tmp_path: Path) -> None:
    """Each on pods of its own, launched as jobs: the largest that eight stages can be."""
    placements = {stage["name"]: {"cpu": str(n + 1), "nodes": 2} for n, stage in enumerate(EIGHT)}  # SFT
    path = compile_recipe(toy_recipe(*EIGHT, cluster={"stages": placements}), tmp_path / "pipeline.yaml")
    assert path.stat().st_size < 400_000


@pytest.mark.parametrize("preset", ["quickstart", "nemotron-cascade-2"])
def test_the_shipped_pipelines_are_the_ones_that_were_looked_at(preset: str, tmp_path: Path) -> None:
    assert golden(preset, tmp_path) == golden_path(preset).read_text(encoding="utf-8"), (
        "the pipeline has changed; if that is meant: python tests/pipelines/golden.py"
    )


def test_manifests_for_a_cluster_that_keeps_pipelines_as_resources(tmp_path: Path) -> None:
    recipe = toy_recipe({"name": "a"}, rounds=0)
    path = compile_recipe(recipe, tmp_path / "p.yaml", kubernetes=True, namespace="team")
    pipeline, version = yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert {m["apiVersion"] for m in (pipeline, version)} == {"pipelines.kubeflow.org/v2beta1"}
    assert {m["metadata"]["namespace"] for m in (pipeline, version)} == {"team"}
    assert version["spec"]["pipelineName"] == pipeline["metadata"]["name"] == "toy"
    assert version["spec"]["pipelineSpec"]["components"]
    other = compile_recipe(toy_recipe({"name": "b"}, rounds=0), tmp_path / "q.yaml", kubernetes=True)
    names = [list(yaml.safe_load_all(p.read_text()))[1]["metadata"]["name"] for p in (path, other)]
    assert names[0] != names[1] and all(name.startswith("toy-") for name in names)


def test_two_processes_compile_the_same_bytes(tmp_path: Path) -> None:
    """kfp's own names depend on the order of a hash map, which differs between processes."""
    code = (
        "import sys; sys.path.insert(0, 'tests/pipelines'); from pathlib import Path\n"
        "from toy_recipe import toy_recipe; from pipelines.compile import compile_recipe\n"
        "compile_recipe(toy_recipe({'name': 'a'}, {'name': 'b'}), Path(sys.argv[1]))"
    )
    paths = [tmp_path / f"{seed}.yaml" for seed in range(2)]
    for path in paths:
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=ROOT)
    assert len({path.read_bytes() for path in paths}) == 1


def test_steps_of_one_name_with_different_executors_are_refused() -> None:
    from pipelines.cascade import Steps

    cascade = build_cascade(toy_recipe({"name": "a"}, rounds=0), Steps.shipped())
    executors = cascade.pipeline_spec.deployment_spec["executors"]
    label = next(name for name in executors if name.startswith("exec-evaluate-"))
    executors[label]["container"]["image"] = "another"
    with pytest.raises(ValueError, match="different executors"):
        canonicalise(cascade.pipeline_spec, cascade.platform_spec)


def test_compiling_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from kascade.recipe.load import load_recipe\n"
        "from pipelines.compile import compile_recipe\n"
        "compile_recipe(load_recipe('quickstart'), Path(sys.argv[1]))\n"
        "assert not {'torch', 'transformers', 'mlflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "q.yaml")], check=True, cwd=ROOT)
