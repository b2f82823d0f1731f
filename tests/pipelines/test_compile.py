"""The compiled pipeline: its structure, its stable names, its size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from compiled import attempts, compiled, component_of, dags, guarded, is_dag, source_of, tasks_of, titles
from golden import golden, golden_path
from kfp import components
from toy_recipe import toy_recipe

from components.image import IMAGE
from kascade.errors import UserError
from kascade.recipe.load import load_recipe
from pipelines.canonical import canonicalise
from pipelines.cascade import build_cascade
from pipelines.compile import compile_recipe
from pipelines.literal import refuse_filled_in

ROOT = Path(__file__).resolve().parents[2]
EIGHT = [{"name": f"stage_{n}"} for n in range(8)]


def test_a_person_reads_the_cascade(tmp_path: Path) -> None:
    recipe = toy_recipe({"name": "a"}, {"name": "b", "title": "Polish"})
    spec = compiled(recipe, tmp_path)
    whole = spec["root"]["dag"]["tasks"]
    assert {task["taskInfo"]["name"] for task in whole.values()} == {"Cascade", "Report"}
    assert {task["taskInfo"]["name"] for task in tasks_of(spec).values()} == {
        "Preflight",
        "Benchmarks of the base model",
        "1 · SFT",
        "1 · Settle",
        "2 · Polish",
        "2 · Settle",
        "End check",
        "Finish",
    }


def test_a_guarded_stage_branches_on_what_evaluation_found(tmp_path: Path) -> None:
    spec = compiled(toy_recipe({"name": "a"}, rounds=1), tmp_path)
    assert set(attempts(spec, "stage-1-a")) == {"Begin", "Train and guard", "Not begun"}
    assert set(titles(tasks_of(spec, attempts(spec, "stage-1-a")["Not begun"]))) == {"Why"}
    stage = guarded(spec, "stage-1-a")
    assert set(stage) == {"Train", "Evaluate", "Verdict", "Recovery, round 1"}
    condition = stage["Recovery, round 1"]["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--a-train-evaluate-Output'] == true"
    recovery = titles(tasks_of(spec, stage["Recovery, round 1"]))
    assert set(recovery) == {"Recover", "Evaluate", "Verdict"}
    settle = tasks_of(spec)["a-settle"]
    assert set(settle["inputs"]["parameters"]) == {"run", "stage", "parent"}  # it finds its candidate by key
    assert settle["dependentTasks"] == ["preflight", "stage-1-a"]


def test_the_end_check_has_the_gate_of_a_stage(tmp_path: Path) -> None:
    spec = compiled(toy_recipe({"name": "a"}), tmp_path)
    gate = titles(tasks_of(spec, tasks_of(spec)["end-check"]))
    assert set(gate) == {"Begin", "Check", "Not begun"}
    assert set(titles(tasks_of(spec, gate["Check"]))) == {"End check"}
    assert "end-check" in tasks_of(spec)["finish"]["dependentTasks"]


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_as_many_recoveries_as_the_recipe_allows(tmp_path: Path, rounds: int) -> None:
    spec = compiled(toy_recipe({"name": "a"}, {"name": "b"}, rounds=rounds), tmp_path)
    every = [task for _, tasks in dags(spec) for task in tasks.values()]
    used = [component_of(spec, task).get("executorLabel") for task in every]
    assert used.count("exec-recover") == 2 * rounds
    assert used.count("exec-evaluate") == 1 + 2 * (1 + rounds)  # every recovery is judged again
    assert used.count("exec-settle") == 2


def test_a_branch_is_handed_what_it_uses_and_no_more(tmp_path: Path) -> None:
    """A recovery in a recovery needs nothing of the conditions around it, and Argo's object has a limit."""
    spec = compiled(toy_recipe({"name": "a"}, rounds=2), tmp_path)
    first = guarded(spec, "stage-1-a")["Recovery, round 1"]
    second = titles(tasks_of(spec, first))["Recovery, round 2"]
    channel = "pipelinechannel--"
    assert set(second["inputs"]["parameters"]) == {
        f"{channel}{name}" for name in ("run", "parent", "a-recover-1-Output", "a-recover-1-evaluate-Output")
    }
    for _, tasks in dags(spec):
        for task in (task for task in tasks.values() if is_dag(spec, task)):
            defined = component_of(spec, task).get("inputDefinitions", {}).get("parameters", {})
            assert set(defined) == set(task.get("inputs", {}).get("parameters", {}))


def test_benchmarks_share_pods_of_their_own(tmp_path: Path) -> None:
    """Those of the base model, of every stage and every recovery, and the end check."""
    accelerators = {"default": {"accelerators": 4}, "stages": {"b": {"accelerators": 8}}}
    recipe = toy_recipe(
        {"name": "a"}, {"name": "b"}, rounds=1, cluster={**accelerators, "benchmarks": {"accelerators": 1}}
    )
    executors = compiled(recipe, tmp_path)["deploymentSpec"]["executors"]
    asked = {name: one["container"]["resources"].get("accelerator") for name, one in executors.items()}
    assert {name: int(one["resourceCount"]) for name, one in asked.items() if one} == {
        **{"exec-train": 4, "exec-recover": 4, "exec-train-2-b": 8, "exec-recover-2-b": 8},
        **{"exec-evaluate": 1, "exec-retain": 1},
    }


def test_equal_steps_share_one_component(tmp_path: Path) -> None:
    """Kubeflow keeps the settings of a component's pods once for each name."""
    spec = compiled(load_recipe("nemotron-cascade-2"), tmp_path)
    labels = [one["executorLabel"] for one in spec["components"].values() if "executorLabel" in one]
    assert len(labels) == len(set(labels)) < 20


def test_the_next_stage_starts_from_what_was_settled(tmp_path: Path) -> None:
    tasks = tasks_of(compiled(toy_recipe({"name": "a"}, {"name": "b"}), tmp_path))
    assert source_of(tasks["stage-1-a"], "parent") == "preflight"
    assert "base-train-evaluate" in tasks["stage-1-a"]["dependentTasks"]
    assert source_of(tasks["stage-2-b"], "parent") == "a-settle"


def test_side_branches_and_named_parents(tmp_path: Path) -> None:
    recipe = toy_recipe(
        {"name": "a"}, {"name": "side", "side_branch": True}, {"name": "b"}, {"name": "c", "parent": "side"}
    )
    tasks = tasks_of(compiled(recipe, tmp_path))
    assert source_of(tasks["stage-2-side"], "parent") == "a-settle"
    assert source_of(tasks["stage-3-b"], "parent") == "a-settle"
    assert source_of(tasks["stage-4-c"], "parent") == "side-settle"
    assert "b-settle" in tasks["stage-4-c"]["dependentTasks"], "it is held against what the main line has"
    assert "side-settle" not in tasks["stage-3-b"]["dependentTasks"]
    assert {"side-settle", "b-settle", "c-settle"} <= set(tasks["end-check"]["dependentTasks"])
    assert source_of(tasks["end-check"], "checkpoint") == "c-settle"
    assert source_of(tasks["finish"], "checkpoint") == "c-settle"


def test_a_stage_waits_for_its_teachers(tmp_path: Path) -> None:
    """The multi-teacher stage of the preset learns from a side branch, which is not its parent."""
    spec = compiled(load_recipe("nemotron-cascade-2"), tmp_path)
    tasks = {task["taskInfo"]["name"]: task for task in tasks_of(spec).values()}
    side = next(name for name in tasks_of(spec) if name == "rlhf-teacher-settle")
    mopd = next(task for name, task in tasks.items() if "MOPD" in name)
    assert side in mopd["dependentTasks"]


def test_nothing_is_cached(tmp_path: Path) -> None:
    """Kubeflow's cache ends no DAG, and its key knows nothing of the run's folder."""
    spec = compiled(toy_recipe({"name": "a"}), tmp_path)
    every = [task for _, tasks in dags(spec) for task in tasks.values()]
    assert len(every) > 10
    assert not [task for task in every if task.get("cachingOptions", {}).get("enableCache")]
    containers = [task for task in every if not is_dag(spec, task)]
    assert all("cachingOptions" in task for task in containers)  # Kubeflow caches where it is left out


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
    assert path.stat().st_size < 220_000


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


def test_text_that_a_cluster_would_fill_in_is_broken_up_or_refused(tmp_path: Path) -> None:
    """Kubernetes reads $$ and $(, Argo {{, in whatever reaches a step's arguments."""
    spec = compiled(toy_recipe({"name": "a", "title": "$(x) $$y$$ {{z}}"}, rounds=0), tmp_path)
    assert tasks_of(spec)["stage-1-a"]["taskInfo"]["name"] == "1 · $ (x) $ $y$ $ { {z}}"
    with pytest.raises(UserError, match="would be changed on its way") as caught:
        refuse_filled_in({"tasks": {"a": ["$(TEAM)", "{{x}}", "{{$.inputs}}"]}}, "pipeline")
    assert [fault.where for fault in caught.value.faults] == ["pipeline.tasks.a.0", "pipeline.tasks.a.1"]


@pytest.mark.parametrize("image", ["a b", "$(REGISTRY)/kascade", "Kascade", "kascade:", "x\n", "ä"])
def test_an_image_that_no_node_can_fetch_is_refused(
    image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.compile.IMAGE", image)
    with pytest.raises(UserError, match=r"KASCADE_IMAGE: .* is no name of an image"):
        compiled(toy_recipe({"name": "a"}, rounds=0), tmp_path)


def test_the_form_offers_the_recipes_scales_to_choose_from(tmp_path: Path) -> None:
    scales = {"smoke": {}, "full": {}}
    path = compile_recipe(toy_recipe({"name": "a"}, rounds=0), tmp_path / "p.yaml", scales=scales)
    spec = next(yaml.load_all(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))
    scale = spec["root"]["inputDefinitions"]["parameters"]["scale"]
    assert scale["literals"] == ["", "smoke", "full"] and scale["defaultValue"] == ""
    loaded = components.load_component_from_file(str(path))
    assert loaded.component_spec.inputs["scale"].type == "String"


def test_two_processes_compile_the_same_bytes(tmp_path: Path) -> None:
    """kfp's own names depend on the order of a hash map, which differs between processes."""
    code = (
        "import sys; from pathlib import Path\n"
        "from toy_recipe import toy_recipe; from pipelines.compile import compile_recipe\n"
        "compile_recipe(toy_recipe({'name': 'a'}, {'name': 'b'}), Path(sys.argv[1]))"
    )
    paths = [tmp_path / f"{seed}.yaml" for seed in range(2)]
    for path in paths:
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'pipelines'}"}
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=ROOT, env=environment)
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
