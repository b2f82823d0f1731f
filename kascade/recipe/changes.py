"""Changes of a recipe that make a stage need less memory on each device, cheapest first.

A change is a few fields and their values, as a recipe or `--set` takes them. Each is tried on the recipe
itself: what the recipe's own checks refuse, or what does not fit with it, is not proposed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, product
from math import ceil
from typing import Any

from pydantic import ValidationError

from kascade.environment_names import CONVERSATIONS
from kascade.recipe.groups import SAMPLES, Planned, longest_row
from kascade.recipe.hardware import DEVICES, GIB, Hardware
from kascade.recipe.methods import Stage
from kascade.recipe.recovering import recovery_workers
from kascade.recipe.schema import Recipe

SHOWN = 3
MOST_DOUBLINGS = 4  # of processes, or of rows cut in half
ADAPTER_RANK = 32
SHARE_STEP = 0.1  # of vLLM's share of a device
VLLM = "model.rollout.vllm"
Fields = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Change:
    """fields: dotted paths with their new values. cost: to compare changes by. kind: of a stronger or weaker
    form of the same."""

    kind: str
    fields: Fields
    cost: float

    @property
    def text(self) -> str:
        """What to write into the recipe."""
        return " and ".join(f"{path}: {_written(value)}" for path, value in self.fields)


def cheapest(
    recipe: Recipe, refused: Planned, hardware: Hardware, fits: Callable[[Recipe], bool]
) -> list[Change]:
    """At most three changes, or pairs of them, with which `fits(changed recipe)` holds."""
    chosen: list[Change] = []
    for change in sorted(_worth_trying(recipe, refused, hardware, fits), key=lambda one: one.cost):
        if any(set(earlier.kind.split()) <= set(change.kind.split()) for earlier in chosen):
            continue  # it contains one that is enough by itself, or is a stronger form of it
        changed = with_fields(recipe, change.fields)
        if changed is not None and fits(changed):
            chosen.append(change)
        if len(chosen) == SHOWN:
            break
    return chosen


def _worth_trying(
    recipe: Recipe, refused: Planned, hardware: Hardware, fits: Callable[[Recipe], bool]
) -> Iterator[Change]:
    """Changes of one kind, then of two, save those whose strongest form is not enough."""
    kinds: dict[str, list[Change]] = {}
    for change in _singles(recipe, refused, hardware):
        kinds.setdefault(change.kind, []).append(change)
    groups = list(kinds.values())
    for one in groups:
        if _may_do(recipe, one[-1], fits):
            yield from one
    for one, other in combinations(groups, 2):
        if _may_do(recipe, _both(one[-1], other[-1]), fits):
            yield from (_both(*pair) for pair in product(one, other))


def _may_do(recipe: Recipe, strongest: Change, fits: Callable[[Recipe], bool]) -> bool:
    changed = with_fields(recipe, strongest.fields)
    return changed is None or fits(changed)  # where it is refused a weaker form may be taken


def with_fields(recipe: Recipe, fields: Fields) -> Recipe | None:
    """The recipe with new values; None where its own checks refuse them."""
    root: Any = recipe.model_dump(mode="json")
    for path, value in fields:
        first, *rest = path.split(".")
        at: Any = next((stage for stage in root["stages"] if stage["name"] == first), None)
        if at is None:
            rest = [first, *rest]
            at = root
        if rest[0] == "benchmarks":
            at = next(one for one in root["benchmarks"] if one["name"] == rest[1])
            rest = rest[2:]
        for name in rest[:-1]:
            at = at.setdefault(name, {})
        old = at.get(rest[-1])
        both = isinstance(old, dict) and isinstance(value, dict)
        at[rest[-1]] = {**old, **value} if both else value
    try:
        return Recipe.model_validate(root)
    except ValidationError:
        return None


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_written(one)}" for name, one in value.items()) + "}"
    return value if isinstance(value, str) and not value.isdigit() else json.dumps(value)


def _both(one: Change, other: Change) -> Change:
    paths = {path for path, _ in one.fields}
    more = tuple((path, value) for path, value in other.fields if path not in paths)
    return Change(f"{one.kind} {other.kind}", (*one.fields, *more), one.cost + other.cost)


def _singles(recipe: Recipe, refused: Planned, hardware: Hardware) -> Iterator[Change]:
    stage = refused.stage
    if stage is not None and refused.role not in SAMPLES:
        yield from _for_trainers(recipe, stage, refused)
        yield from _more_processes(recipe, stage, refused, hardware)
    yield from _for_samplers(recipe, refused)
    if stage is not None:
        yield from _shorter_rows(recipe, stage, refused)
    yield from _other_devices(hardware)


def _for_trainers(recipe: Recipe, stage: Stage, refused: Planned) -> Iterator[Change]:
    if stage.activations == "keep":
        yield Change("activations", ((f"{stage.name}.activations", "recompute"),), 1.3)
    if stage.activations != "offload":
        yield Change("activations", ((f"{stage.name}.activations", "offload"),), 1.6)
    if refused.layout.whole_teachers and not refused.layout.teachers_rest:
        yield Change("frozen", ((f"{stage.name}.frozen_weights", "host"),), 1.4)
    if refused.layout.adapter is None:
        yield Change("adapter", (("adapter", {"rank": ADAPTER_RANK}),), 2.0)


def _more_processes(recipe: Recipe, stage: Stage, refused: Planned, hardware: Hardware) -> Iterator[Change]:
    for doublings in range(1, MOST_DOUBLINGS + 1):
        processes = refused.processes * 2**doublings
        fields = tuple(_processes(recipe, stage, refused, processes, hardware))
        devices = refused.devices + processes - refused.processes
        nodes = max(hardware.nodes, ceil(devices / hardware.per_node))
        lacking = nodes > hardware.nodes
        more = (("hardware.nodes", nodes),) if lacking else ()
        yield Change("processes", (*fields, *more), 2.5 * doublings + 4 * lacking)


def _processes(
    recipe: Recipe, stage: Stage, refused: Planned, processes: int, hardware: Hardware
) -> Iterator[tuple[str, Any]]:
    """The fields that give a group so many processes."""
    placed = recipe.cluster.placement(stage.name)
    if stage.answers_by() is None and refused.role == "train":
        yield from _devices(recipe, stage, processes, hardware)
        return
    own = stage.answers_by() is not None
    where = f"{stage.name}.workers" if own else "guard.recovery.workers"
    workers = stage.actors() if own else recovery_workers(recipe, stage)
    yield where, {"trainers": processes, "gpus": max(1, round(workers.gpus))}
    if own and stage.parallel.shard is not None:
        yield f"{stage.name}.parallel.shard", processes // stage.parallel.replicate
    needed = processes + workers.samplers
    if placed.accelerators and placed.nodes * placed.accelerators < needed:
        yield f"cluster.stages.{stage.name}", {"nodes": ceil(needed / placed.accelerators)}


def _devices(recipe: Recipe, stage: Stage, processes: int, hardware: Hardware) -> Iterator[tuple[str, Any]]:
    """The pods of a stage that has no workers, and who then recovers it: half train, half sample."""
    each = (
        hardware.per_node
        if processes % hardware.per_node == 0
        else 1
        if processes > hardware.per_node
        else processes
    )
    placed: dict[str, Any] = {"accelerators": each, "nodes": processes // each}
    if recipe.guard.recovery.rounds:
        train = max(1, processes // 2)
        yield "guard.recovery.workers", {"trainers": train, "samplers": processes - train, "gpus": 1}
        placed["cpu"] = str(each + 1)  # an actor each, and the one that drives them
    yield f"cluster.stages.{stage.name}", placed
    if stage.parallel.shard is not None:
        yield f"{stage.name}.parallel.shard", processes // stage.parallel.replicate


def _for_samplers(recipe: Recipe, refused: Planned) -> Iterator[Change]:
    rollout = recipe.model.rollout
    if rollout.engine == "native" and refused.layout.samples is not None:
        for halvings in range(1, MOST_DOUBLINGS + 1):
            if (fewer := min(rollout.max_batch_rows, refused.layout.samples[0]) // 2**halvings) >= 1:
                yield Change("batch", (("model.rollout.max_batch_rows", fewer),), 0.5 + halvings)
    if refused.layout.engine_devices:
        share = recipe.model.rollout.vllm.gpu_memory_utilization
        for less in range(1, MOST_DOUBLINGS + 1):
            if share - SHARE_STEP * less > 0:
                lower = round(share - SHARE_STEP * less, 2)
                yield Change("share", ((f"{VLLM}.gpu_memory_utilization", lower),), 1.0 + less / 10)
        for doublings in range(1, MOST_DOUBLINGS + 1):
            cut = refused.layout.engine_devices * 2**doublings
            yield Change("engine", ((f"{VLLM}.tensor_parallel_size", cut),), 2.0 * doublings)
    if refused.role == "examine" and recipe.exam_processes > 1:
        yield Change("exams", (("exam_processes", 1),), 1.0)


def _shorter_rows(recipe: Recipe, stage: Stage, refused: Planned) -> Iterator[Change]:
    for halvings in range(1, MOST_DOUBLINGS + 1):
        most = refused.layout.tokens // 2**halvings
        if most >= 1 and (fields := tuple(_lengths(recipe, stage, refused, most))):
            yield Change("rows", fields, 3.5 + halvings)


def _lengths(recipe: Recipe, stage: Stage, refused: Planned, most: int) -> Iterator[tuple[str, Any]]:
    """The fields that let no row of a group have more than `most` tokens."""
    if stage.micro_batch_tokens > most:
        yield f"{stage.name}.micro_batch_tokens", most
    if refused.role in ("recover", "redraw"):
        for one in recipe.benchmarks:
            where = f"benchmarks.{one.name}.sampling"
            if one.sampling.max_new_tokens > most and not one.source.of_another_tool:
                yield f"{where}.max_new_tokens", most
            if one.source.environment in CONVERSATIONS and one.sampling.conversation.max_tokens > most:
                yield f"{where}.conversation.max_tokens", most
        return
    sampling = stage.answers_by()
    if sampling is None:
        if (stage.longest_given() or 0) > most:
            yield f"{stage.name}.max_tokens", most
        return
    if sampling.max_new_tokens > most:
        yield f"{stage.name}.sampling.max_new_tokens", most
    if longest_row(stage, sampling) > most and sampling.conversation.max_tokens > most:
        talks = longest_row(stage, sampling) != sampling.max_new_tokens
        if talks:
            yield f"{stage.name}.sampling.conversation.max_tokens", most


def _other_devices(hardware: Hardware) -> Iterator[Change]:
    memory = hardware.memory_bytes
    larger = sorted((one.memory_gib, name) for name, one in DEVICES.items() if one.memory_gib * GIB > memory)
    own = (("hardware.memory_gib", None),) if hardware.memory_gib is not None else ()
    for rank, (_, name) in enumerate(larger):
        yield Change("device", (("hardware.device", name), *own), 6.0 + rank)
