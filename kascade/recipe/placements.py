"""Checks of placements: whether the jobs of a recipe can train its stages, and have room."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from kascade.recipe.checks import NamedPart, Problem, entries_of, unknown_name
from kascade.recipe.guard import Recovery
from kascade.recipe.methods import METHODS
from kascade.recipe.workers import count_actors, half_each


def placement_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """Placements of stages that are not there, as jobs that cannot train their kind, or without room."""
    cluster, stages = recipe.get("cluster"), entries_of(recipe, "stages")
    if not isinstance(cluster, dict):
        return
    yield from _benchmarks_have_room(recipe, cluster)
    named = cluster.get("stages")
    placements = named if isinstance(named, dict) else {}
    known = [stage.name for stage in stages]
    for name in [name for name in placements if name not in known]:
        yield unknown_name(("cluster", "stages", name), name, "a stage", known)
    for stage in stages:
        own = ("stages", stage.name) if stage.name in placements else ("default",)
        placement = _over(cluster.get("default"), placements.get(stage.name))
        runs_as = placement.get("runs_as") if isinstance(placement, dict) else None
        method = METHODS.get(str(stage.value.get("kind")))
        if method is None:  # reported elsewhere
            continue
        fitting = method.cluster_job
        if runs_as in ("trainjob", "rayjob") and runs_as != fitting:
            what = f"a {runs_as} does not train {stage.name!r}, a stage of kind {method.kind}"
            yield Problem(("cluster", *own, "runs_as"), what, f"auto, inline, {fitting}")
        elif fitting == "rayjob" and _several_nodes(placement) and not _has_workers(stage):
            what = f"{stage.name!r} has no `workers` to spread over nodes"
            remedy = "give the stage trainers and samplers under `workers` (RL), or one node"
            yield Problem(("cluster", *own, "nodes"), what, remedy=remedy)
        elif fitting == "rayjob" and _several_nodes(placement):
            with suppress(TypeError, ValueError):  # values of a wrong type are reported elsewhere
                yield from _actors_have_room((*stage.path, "workers"), stage.value["workers"], placement)
        elif fitting == "trainjob" and _several_nodes(placement):
            with suppress(TypeError, ValueError):
                yield from _recoveries_have_workers(recipe, stage.name, placement)


def _over(default: Any, own: Any) -> Any:
    """A stage's placement as `recipe.cluster` completes it, in a recipe that is not read to its end yet."""
    if not isinstance(own, dict):
        return default if own is None else own
    return {**default, **own} if isinstance(default, dict) else own


def _benchmarks_have_room(recipe: Mapping[str, Any], cluster: Mapping[str, Any]) -> Iterator[Problem]:
    """One sampling engine on the pods that benchmarks have of their own."""
    model, pods = recipe.get("model"), cluster.get("benchmarks")
    rollout = model.get("rollout") if isinstance(model, dict) else None
    vllm = rollout.get("vllm") if isinstance(rollout, dict) and rollout.get("engine") == "vllm" else None
    if not isinstance(vllm, dict) or not isinstance(pods, dict) or vllm.get("served"):
        return
    held, engine = pods.get("accelerators"), vllm.get("tensor_parallel_size", 1)
    if isinstance(held, int) and isinstance(engine, int) and 0 < held < engine:
        what = f"an engine with tensor_parallel_size {engine} does not fit on {held}"
        yield Problem(("cluster", "benchmarks", "accelerators"), what, f"{engine} or more")


def _recoveries_have_workers(recipe: Mapping[str, Any], name: str, placement: Any) -> Iterator[Problem]:
    """What a TrainJob trained is recovered by a RayJob on the same nodes: that needs actors."""
    guard = recipe.get("guard")
    rule = guard.get("recovery", {}) if isinstance(guard, dict) else {}
    if not isinstance(rule, dict) or not rule.get("rounds", Recovery().rounds):
        return
    path, workers = ("guard", "recovery", "workers"), rule.get("workers")
    if isinstance(workers, dict) and (workers.get("trainers", 1) != 1 or workers.get("samplers", 0) != 0):
        yield from _actors_have_room(path, workers, placement)
        return
    devices = placement.get("nodes", 1) * max(1, placement.get("accelerators", 0))
    what = f"a recovery of {name!r} draws answers, which processes of its TrainJob do not"
    remedy = f"name actors that recover it, such as {half_each(devices)}, or set guard.recovery.rounds to 0"
    yield Problem(path, what, remedy=remedy)


def _actors_have_room(
    path: tuple[str | int, ...], workers: Mapping[str, Any], placement: Any
) -> Iterator[Problem]:
    """All actors of a RayJob, and the process that drives them, on its nodes at once."""
    trainers, samplers = workers.get("trainers", 1), workers.get("samplers", 0)
    actors = count_actors(trainers, samplers)
    needs = [(workers.get("cpus", 1), workers.get("gpus", 0))] * actors
    driver = workers.get("driver_cpus", 1), workers.get("driver_gpus", 0)
    node = _cores(str(placement.get("cpu", "2"))), placement.get("accelerators", 0)
    free = [node] * placement.get("nodes", 1)
    for cpus, gpus in [driver, *needs]:
        place = next((n for n, (c, g) in enumerate(free) if c >= cpus and g >= gpus), None)
        if place is None:
            what = (
                f"{actors} actors of {needs[0][0]:g} CPUs and {needs[0][1]:g} accelerators, and a driver of "
                f"{driver[0]:g} and {driver[1]:g}, do not fit on {len(free)} x ({node[0]:g} and {node[1]})"
            )
            remedy = "give it more `nodes`, `cpu` or `accelerators`, or ask for fewer or smaller actors"
            yield Problem(path, what, remedy=remedy)
            return
        free[place] = free[place][0] - cpus, free[place][1] - gpus


def _cores(quantity: str) -> float:
    """CPUs of a Kubernetes quantity; a Ray node counts whole ones, rounded up."""
    number = float(quantity.removesuffix("m"))
    return float(math.ceil(number / 1000 if quantity.endswith("m") else number))


def _several_nodes(placement: Any) -> bool:
    if not isinstance(placement, dict):
        return False
    runs_as = placement.get("runs_as", "auto")
    return bool(runs_as in ("rayjob", "trainjob") or (runs_as == "auto" and placement.get("nodes", 1) != 1))


def _has_workers(stage: NamedPart) -> bool:
    workers = stage.value.get("workers")
    if not isinstance(workers, dict):
        return False
    return bool(workers.get("trainers", 1) != 1 or workers.get("samplers", 0) != 0)
