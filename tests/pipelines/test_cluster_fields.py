"""Every field of `cluster` is measured: it changes a pod, a job or how long one is waited for, or is told.

In every place where it can be set: light steps, the default, a stage, the benchmarks; with jobs and without.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from compiled import compiled

from kascade.cluster.launch import Patience
from kascade.cluster.manifests import TrainJobApi, ray_job, train_job
from kascade.cluster.pod import pod_settings
from kascade.doctor.unused import unused_fields
from kascade.recipe.cluster import Cluster, Placement
from kascade.recipe.defaults import over_defaults
from kascade.recipe.run_form import pack
from kascade.recipe.schema import Recipe

DATA = [{"source": {"environment": "mcqa"}}]
TWO = {"trainers": 2, "samplers": 0}
SFT = {"kind": "sft", "name": "sft", "steps": 9, "data": DATA}
RL = {"kind": "if_rl", "name": "rl", "steps": 9, "data": DATA, "workers": TWO}
CHANGES: dict[str, Any] = {
    "image": "registry.example.com/own:1",
    "accelerator": "amd.com/gpu",
    "accelerators": 4,
    "cpu": "6",
    "memory": "16Gi",
    "shared_memory": "1Gi",
    "node_selector": {"pool": "a"},
    "tolerations": [{"key": "k", "operator": "Exists"}],
    "affinity": [{"key": "zone", "values": ["a"]}],
    "secrets": [{"secret": "s", "key": "k", "variable": "V"}],
    "volumes": [{"claim": "c", "path": "/data"}],
    "timeout_s": 60,
    "retries": {"count": 2},
    "retries.backoff_s": 5,
    "retries.factor": 3,
    "retries.max_backoff_s": 99,
    "caching": True,
    "nodes": 3,
    "runs_as": "inline",
    "queue": "own",
    "deadline_s": 70,
    "silence_s": 80,
    "ttl_s": 90,
}
WHOLE: dict[str, Any] = {
    "image": "registry.example.com/own:1",
    "image_pull_policy": "Always",
    "image_pull_secrets": ["registry"],
    "service_account": "other",
    "restricted": False,
    "storage": {"claim": "other", "path": "/kascade"},
    "secrets": CHANGES["secrets"],
    "volumes": CHANGES["volumes"],
    "trainer_runtime": "other",
    "ray_version": "2.61.0",
    "active_deadline_s": 60,
    "keep_finished_s": 60,
}
PARTS = {"light", "default", "stages", "benchmarks"}
JOBS = {"stages": {"sft": {"nodes": 2, "runs_as": "trainjob"}, "rl": {"nodes": 2, "runs_as": "rayjob"}}}


def recipe_of(cluster: dict[str, Any]) -> Recipe:
    fields: dict[str, Any] = {
        "kascade": 1,
        "name": "own",
        "model": {"source": "builtin://mini-nemotron-h"},
        "stages": [SFT, RL],
        "benchmarks": [{"name": "quiz", "source": {"environment": "mcqa"}}],
        "guard": {"recovery": {"rounds": 0}},
        "cluster": cluster,
    }
    return Recipe.model_validate_json(json.dumps(over_defaults(Recipe, fields)))


def seen(recipe: Recipe, folder: Path) -> str:
    """All that a cluster is told: the pipeline without its recipe, the jobs, how long each is waited for."""
    text = json.dumps(compiled(recipe, folder), sort_keys=True)
    assert pack(recipe) in text
    text = text.replace(pack(recipe), "")
    cluster, told = recipe.cluster, [text]
    for stage in recipe.stages:
        shape, placement = cluster.shape_of(stage), cluster.placement(stage.name)
        if shape == "inline":
            continue
        settings = pod_settings(cluster, placement, {}, image="kascade:1")
        common: dict[str, Any] = {"cluster": cluster, "placement": placement, "labels": {}, "owners": []}
        job = (
            ray_job("j", ["x"], settings, workers=stage.actors(), **common)
            if shape == "rayjob"
            else train_job("j", ["x"], settings, api=TrainJobApi("runtimePatches", deadline=True), **common)
        )
        told += [json.dumps(job), str(asdict(Patience(placement.silence_s, placement.deadline_s)))]
    return "\n".join(told)


def warned(recipe: Recipe) -> set[str]:
    return {".".join(map(str, one.path)) for one in unused_fields(recipe)}


def put(cluster: dict[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    inner = put(cluster.get(path[0]) or {}, path[1:], value) if path[1:] else value
    return {**cluster, path[0]: inner}


@pytest.mark.parametrize("shape", ["pods", "jobs"])
@pytest.mark.parametrize("place", ["light", "default", "stages.sft", "stages.rl", "benchmarks"])
def test_a_field_of_a_placement_changes_a_pod_or_is_told(place: str, shape: str, tmp_path: Path) -> None:
    assert {name.split(".")[0] for name in CHANGES} == set(Placement.model_fields)
    plain: dict[str, Any] = JOBS if shape == "jobs" else {}
    path = place.split(".")
    if place == "benchmarks":
        plain = {**plain, "benchmarks": {}}
    if shape == "pods" and path[0] == "stages":  # a stage with pods of its own, whose steps have own names
        plain = put(plain, [*path, "timeout_s"], 61)
    before = seen(recipe_of(plain), tmp_path)
    for field, value in CHANGES.items():
        fields = ["retries"] if field.startswith("retries.") else [field]
        refused = place == "benchmarks" or shape == "pods"
        if field == "runs_as" or (field == "nodes" and (refused or place == "default")):
            continue  # measured by `nodes`, or each stage here says its own
        given = {field.partition(".")[2]: value} if field.startswith("retries.") else value
        changed = recipe_of(put(plain, [*path, *fields], given))
        named = f"cluster.{place}.{field}"
        moved = seen(changed, tmp_path) != before
        assert moved != (named in warned(changed)), (named, moved)


@pytest.mark.parametrize("shape", ["pods", "jobs"])
def test_a_field_of_the_whole_cluster_changes_a_pod_or_is_told(shape: str, tmp_path: Path) -> None:
    assert set(WHOLE) == set(Cluster.model_fields) - PARTS
    plain: dict[str, Any] = JOBS if shape == "jobs" else {}
    before = seen(recipe_of(plain), tmp_path)
    for field, value in WHOLE.items():
        changed = recipe_of({**plain, field: value})
        moved = seen(changed, tmp_path) != before
        assert moved != (f"cluster.{field}" in warned(changed)), (field, moved)
