"""Where steps run: what a recipe may say about it, and what it means when it says little."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kascade.errors import UserError
from kascade.recipe.cluster import Cluster, Placement
from kascade.recipe.identity import find_stage, fingerprint
from kascade.recipe.load import load_recipe
from kascade.recipe.schema import Recipe


def faults_of(**cluster: Any) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe("quickstart", {"cluster": cluster})
    return str(caught.value)


def test_a_stage_takes_the_default_but_for_what_it_says() -> None:
    recipe = load_recipe(
        "quickstart",
        {"cluster": {"default": {"cpu": "8", "accelerators": 4}, "stages": {"if_rl": {"accelerators": 8}}}},
    )
    placement = recipe.cluster.placement("if_rl")
    assert (placement.cpu, placement.accelerators) == ("8", 8)
    assert recipe.cluster.placement("sft") == recipe.cluster.default
    again = Recipe.model_validate_json(recipe.model_dump_json())
    assert again == recipe  # what is written down means the same when read


def test_benchmarks_may_have_pods_of_their_own() -> None:
    """One pod each, whatever stages get; without the field they have the pods of their stage."""
    default = {"cpu": "8", "accelerators": 4, "nodes": 2}
    cluster = Cluster.model_validate({"default": default, "benchmarks": {"accelerators": 1}})
    pods = cluster.benchmark_pods("if_rl")
    assert (pods.cpu, pods.accelerators, pods.nodes, pods.runs_as) == ("8", 1, 1, "inline")
    assert cluster.benchmark_pods("base") == pods and cluster.placement("if_rl").accelerators == 4
    assert Cluster.model_validate(json.loads(cluster.model_dump_json())) == cluster
    without = Cluster.model_validate({"default": default, "stages": {"if_rl": {"accelerators": 8}}})
    assert without.benchmark_pods("if_rl") == without.placement("if_rl")


def test_an_engine_fits_on_the_benchmarks_pods() -> None:
    cut = {"model": {"rollout": {"vllm": {"tensor_parallel_size": 4}}}}
    with pytest.raises(UserError, match="tensor_parallel_size 4 does not fit on 1"):
        load_recipe("nemotron-cascade-1-14b", cut)
    load_recipe("nemotron-cascade-1-14b", {**cut, "cluster": {"benchmarks": {"accelerators": 4}}})


PLACEMENTS = st.fixed_dictionaries(
    {},
    optional={
        "cpu": st.sampled_from(["1", "500m", "96"]),
        "accelerators": st.integers(0, 8),
        "nodes": st.integers(1, 4),
        "retries": st.fixed_dictionaries({"count": st.integers(0, 5)}),
    },
)


@settings(deadline=None)  # machines that are shared stall
@given(default=PLACEMENTS, own=PLACEMENTS)
def test_completing_is_done_once(default: dict[str, Any], own: dict[str, Any]) -> None:
    cluster = Cluster.model_validate({"default": default, "stages": {"a": own}})
    expected = Placement.model_validate({**default, **own})
    assert cluster.placement("a") == expected
    assert Cluster.model_validate(json.loads(cluster.model_dump_json())) == cluster


def test_placement_changes_no_weights() -> None:
    changes = {"cluster": {"default": {"accelerators": 8}, "image": "other:2"}}
    assert fingerprint(load_recipe("quickstart")) == fingerprint(load_recipe("quickstart", changes))


@pytest.mark.parametrize(
    ("nodes", "kind", "shape"), [(1, "sft", "inline"), (2, "sft", "trainjob"), (2, "if_rl", "rayjob")]
)
def test_the_number_of_nodes_decides_how_a_stage_runs(nodes: int, kind: str, shape: str) -> None:
    stage = next(stage for stage in load_recipe("quickstart").stages if stage.kind == kind)
    assert Cluster(default=Placement(nodes=nodes)).shape_of(stage) == shape


def test_a_scale_decides_it() -> None:
    large, small = load_recipe("nemotron-cascade-2"), load_recipe("nemotron-cascade-2", scale="node")
    assert [large.cluster.shape_of(s) for s in large.stages[:2]] == ["trainjob", "rayjob"]
    assert [small.cluster.shape_of(s) for s in small.stages[:2]] == ["trainjob", "inline"]
    assert small.cluster.default.accelerators == 8


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ({"default": {"gpus": 8}}, "unknown key 'gpus'"),
        ({"stages": {"if_lr": {}}}, "did you mean 'if_rl'?"),
        ({"default": {"memory": "8 GB"}}, '"8 GB" will not do'),
        (
            {"benchmarks": {"nodes": 2}},
            "cluster.benchmarks.nodes: 2 will not do: a benchmark runs in one pod",
        ),
        ({"benchmarks": {"runs_as": "trainjob"}}, "trainjob will not do: a benchmark runs in one pod"),
        ({"default": {"nodes": 2, "runs_as": "inline"}}, "2 nodes cannot be one pod"),
        ({"stages": {"if_rl": {"runs_as": "trainjob"}}}, "a trainjob does not train 'if_rl'"),
        ({"default": {"runs_as": "rayjob"}}, "a rayjob does not train 'sft'"),
        ({"stages": {"if_rl": {"nodes": 2}}}, "'if_rl' has no `workers` to spread over nodes"),
        ({"default": {"tolerations": [{"operator": "Exists", "value": "x"}]}}, "Exists compares no value"),
        ({"volumes": [{"claim": "data", "path": "/kascade"}]}, "two volumes at /kascade"),
        ({"default": {"tolerations": [{"value": "x"}]}}, "Equal needs a key"),
        ({"secrets": [{"secret": "s", "key": "k", "variable": "1X"}]}, '"1X" will not do'),
        ({"storage": {"claim": "c", "path": "relative"}}, '"relative" will not do'),
        ({"default": {"tolerations": [{"key": "k", "toleration_seconds": 5}]}}, "the effect NoExecute alone"),
        ({"default": {"affinity": [{"key": "k"}]}}, "In does not go with no values"),
        ({"default": {"affinity": [{"key": "k", "operator": "Exists", "values": ["a"]}]}}, "allowed: none"),
        ({"default": {"affinity": [{"key": "k", "operator": "Gt", "values": ["a"]}]}}, "one whole number"),
        ({"default": {"timeout_s": 2**31}}, "a whole number ≥ 1 ≤ 2,147,483,647"),
        ({"default": {"cpu": "8 cores"}}, "allowed: a quantity such as 8, 500m or 8Gi"),
    ],
)
def test_faults_are_told(cluster: dict[str, Any], told: str) -> None:
    assert told in faults_of(**cluster)


HOSTILE = ["{{x}}", "$$(A)", "$(HOME)", 'a"b', "a b", "ä", "a\\b", "a\nb", "{{$.inputs}}", "a:b:c"]
FIELDS = {
    "image": lambda text: {"image": text},
    "default.image": lambda text: {"default": {"image": text}},
    "storage.path": lambda text: {"storage": {"claim": "c", "path": f"/{text}"}},
    "storage.sub_path": lambda text: {"storage": {"claim": "c", "path": "/k", "sub_path": text}},
    "ray_version": lambda text: {"ray_version": text},
    "volumes.0.path": lambda text: {"volumes": [{"claim": "c", "path": f"/{text}"}]},
    "light.node_selector.pool": lambda text: {"light": {"node_selector": {"pool": text}}},
    "light.node_selector": lambda text: {"light": {"node_selector": {text: "pool"}}},
    "light.tolerations": lambda text: {"light": {"tolerations": [{"key": "k", "value": text}]}},
    "stages.sft.affinity": lambda text: {"stages": {"sft": {"affinity": [{"key": "k", "values": [text]}]}}},
    "secrets.0.key": lambda text: {"secrets": [{"secret": "s", "key": text, "variable": "V"}]},
    "service_account": lambda text: {"service_account": text},
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("text", HOSTILE)
def test_what_kubernetes_would_refuse_or_change_is_refused_in_the_recipe(field: str, text: str) -> None:
    """A pod that cannot start is seen hours later, and an image of a wrong form waits for good."""
    with pytest.raises(ValidationError):
        Cluster.model_validate(FIELDS[field](text))


@pytest.mark.parametrize(
    "image",
    [
        "kascade",
        "kascade:0.1.0",
        "localhost:5000/kascade",
        "registry.example.com:443/a/b_c/d-e:v1.0-rc_2",
        "ghcr.io/team/kascade@sha256:" + "0" * 64,
        "Registry.example/a:1@sha256:" + "f" * 64,
    ],
)
def test_images_as_registries_have_them(image: str) -> None:
    assert Cluster.model_validate({"image": image}).image == image


def test_a_stage_with_workers_spreads_over_nodes() -> None:
    changes = {"if_rl": {"workers": {"samplers": 2}}, "cluster": {"stages": {"if_rl": {"nodes": 2}}}}
    recipe = load_recipe("quickstart", changes)
    assert recipe.cluster.shape_of(find_stage(recipe, "if_rl")) == "rayjob"


@pytest.mark.parametrize(
    ("workers", "placement", "told"),
    [
        ({"samplers": 2}, {"nodes": 2}, None),
        ({"samplers": 2, "trainers": 2}, {"nodes": 2}, "4 actors of 1 CPUs and 0 accelerators"),
        ({"samplers": 2, "trainers": 2}, {"nodes": 2, "cpu": "2500m"}, None),  # five, as Ray counts them
        ({"samplers": 2, "cpus": 2}, {"nodes": 3, "cpu": "3"}, None),
        ({"samplers": 3, "cpus": 2}, {"nodes": 3}, r"a driver of 1 and 0, do not fit on 3 x \(2 and 0"),
        ({"samplers": 2, "gpus": 4}, {"nodes": 2, "cpu": "9", "accelerators": 4}, None),
        (
            {"samplers": 2, "gpus": 4, "driver_gpus": 1},
            {"nodes": 2, "cpu": "9", "accelerators": 4},
            r"2 x \(9 and 4\)",
        ),
        ({"samplers": 9}, {"runs_as": "rayjob"}, "do not fit"),
        ({"samplers": 9}, {}, None),  # in one pod: Ray starts as many as it is asked for
    ],
)
def test_a_rayjobs_actors_have_to_fit_on_its_nodes(
    workers: dict[str, Any], placement: dict[str, Any], told: str | None
) -> None:
    changes = {"if_rl": {"workers": workers}, "cluster": {"stages": {"if_rl": placement}}}
    if told is None:
        load_recipe("quickstart", changes)
        return
    with pytest.raises(UserError, match=told):
        load_recipe("quickstart", changes)


def test_all_faults_come_at_once() -> None:
    told = faults_of(default={"gpus": 1, "cpu": "many"}, stages={"nowhere": {}})
    assert "gpus" in told and '"many"' in told and "nowhere" in told


def test_a_stage_left_out_takes_its_pods_along() -> None:
    pods = {"cluster": {"stages": {"if_rl": {"cpu": "8"}}}}
    recipe = load_recipe("quickstart", {**pods, "if_rl": None})
    assert "if_rl" not in recipe.cluster.stages


def test_secrets_hold_no_value() -> None:
    with pytest.raises(ValidationError):
        Cluster.model_validate(
            {"secrets": [{"secret": "s", "key": "k", "variable": "V", "value": "hunter2"}]}
        )
