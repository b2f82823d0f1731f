"""Whether every stage of a recipe fits its hardware, with what, and what would make it fit.

One row of the plan for each group of processes that are alike (`recipe.groups`); `Plan.memory` holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

from pydantic import BaseModel, ConfigDict

from kascade.recipe.changes import cheapest
from kascade.recipe.checks import Problem
from kascade.recipe.groups import BENCHMARKS, SAMPLES, Planned, Role, examining, groups_of, planned_groups
from kascade.recipe.hardware import GIB, Hardware
from kascade.recipe.identity import find_stage
from kascade.recipe.layout import BYTES, Range
from kascade.recipe.memory import cached_rows, memory_of, sampler_copies, total_of
from kascade.recipe.memory_sampling import sampler_memory
from kascade.recipe.model_config import model_shape_of
from kascade.recipe.parallel import parallel_problems
from kascade.recipe.schema import Recipe
from kascade.recipe.shapes import ModelShape

FIRST = "cheapest first: "
ALONE = "more of this stage does not fit. For this alone, cheapest first: "


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Amount(_Row):
    """GiB."""

    low: float
    expected: float
    high: float

    @classmethod
    def of(cls, amount: Range) -> Amount:
        return cls(**{name: round(getattr(amount, name) / GIB, 3) for name in ("low", "expected", "high")})


class MemoryGroup(_Row):
    """Processes of one kind, each on a device of its own.

    role: see `recipe.groups.Role`. parts: GiB on one device by name. fits: whether `total.expected` does.
    """

    stage: str
    role: str
    processes: int
    parts: dict[str, Amount]
    total: Amount
    fits: bool


class MemoryPlan(_Row):
    """Memory on the devices of `hardware`. not_counted: why there are no rows, where there are none."""

    device: str
    device_gib: float
    devices: int
    parameters: int | None
    groups: tuple[MemoryGroup, ...] = ()
    not_counted: str | None = None


def plan_memory(recipe: Recipe) -> MemoryPlan | None:
    """The memory of every stage; None for a recipe that names no hardware."""
    hardware = recipe.hardware
    if hardware is None:
        return None
    shape = model_shape(recipe)
    common: dict[str, Any] = {
        "device": hardware.device,
        "device_gib": round(hardware.memory_bytes / GIB, 1),
        "devices": hardware.devices,
    }
    if shape is None:
        reason = f"the shape of {recipe.model.source} is not known here: name a folder with its config.json"
        return MemoryPlan(**common, parameters=None, not_counted=reason)
    groups = tuple(_counted(shape, one, hardware) for one in planned_groups(recipe))
    return MemoryPlan(**common, parameters=shape.size, groups=groups)


def model_shape(recipe: Recipe) -> ModelShape | None:
    return model_shape_of(recipe.model.source)


def _counted(shape: ModelShape, one: Planned, hardware: Hardware) -> MemoryGroup:
    parts = parts_of(shape, one)
    total = total_of(parts)
    return MemoryGroup(
        stage=one.name,
        role=one.role,
        processes=one.processes,
        parts={name: Amount.of(amount) for name, amount in parts.items()},
        total=Amount.of(total),
        fits=total.expected <= hardware.memory_bytes,
    )


def parts_of(shape: ModelShape, one: Planned) -> dict[str, Range]:
    """Bytes on one device of a group, by name."""
    if one.role == "examine":  # processes that share a device
        return sampler_memory(shape, one.layout, one.processes)
    return sampler_memory(shape, one.layout) if one.role in SAMPLES else memory_of(shape, one.layout)


def memory_problems(recipe: Recipe) -> Iterator[Problem]:
    """What does not fit the hardware, each with the three cheapest changes that would make it fit."""
    hardware, shape = recipe.hardware, model_shape(recipe)
    if hardware is None or shape is None:
        return
    yield from share_problems(recipe, shape)
    refused: set[str] = set()
    for one in planned_groups(recipe):
        path = ("stages", recipe.stages.index(one.stage)) if one.stage is not None else ("benchmarks",)
        if one.devices > hardware.devices:
            what = f"{_verb(one)} needs {one.devices} devices, and the hardware has {hardware.devices}"
            remedy = "ask for fewer processes that train or sample, or raise hardware.nodes"
            yield Problem(path, what, remedy=remedy)
        total = total_of(parts_of(shape, one))
        if total.expected > hardware.memory_bytes and one.name not in refused:
            refused.add(one.name)  # what cannot train is not refused for its recovery, too
            yield Problem(path, _what(one, total, hardware), remedy=_remedy(recipe, one, hardware))


def share_problems(recipe: Recipe, shape: ModelShape) -> Iterator[Problem]:
    """Why vLLM would not start: its share of a device must hold the weights and one row of full length."""
    engines = [one for one in planned_groups(recipe) if one.layout.engine_devices and one.layout.engine_bytes]
    needed = max((_engine_bytes(shape, one), one.name) for one in engines) if engines else (0.0, "")
    part = recipe.model.rollout.vllm
    if recipe.hardware is None or not engines or needed[0] <= engines[0].layout.engine_bytes:
        return
    least = ceil(100 * needed[0] / recipe.hardware.memory_bytes) / 100
    what = (
        f"{part.gpu_memory_utilization} of a device are {engines[0].layout.engine_bytes / GIB:.0f} GiB, and "
        f"vLLM's weights with one row of {needed[1]} take {needed[0] / GIB:.0f}"
    )
    remedy = "raise it, spread vLLM over more devices (tensor_parallel_size), or allow shorter rows"
    where = ("model", "rollout", "vllm", "gpu_memory_utilization")
    yield Problem(where, what, allowed=f"at least {least}" if least < 1 else None, remedy=remedy)


def _engine_bytes(shape: ModelShape, one: Planned) -> float:
    alone = replace(one.layout, engine_bytes=0.0)
    return sampler_copies(shape, alone) * BYTES[alone.precision] + cached_rows(shape, alone).high


def fits(recipe: Recipe, name: str, role: Role | None = None) -> bool:
    """Whether all groups of a stage (or those of the benchmarks) have room on the recipe's hardware.

    role: None: all of them; else those of that role alone.
    """
    hardware, shape = recipe.hardware, model_shape(recipe)
    if hardware is None or shape is None:
        return True
    if any(share_problems(recipe, shape)):
        return False
    return all(
        one.devices <= hardware.devices
        and total_of(parts_of(shape, one)).expected <= hardware.memory_bytes
        and not any(_cannot_share(recipe, one))
        for one in _of(recipe, name)
        if role in (None, one.role)
    )


def _of(recipe: Recipe, name: str) -> Iterator[Planned]:
    """The groups of a stage, or of the benchmarks."""
    return iter((examining(recipe),)) if name == BENCHMARKS else groups_of(recipe, find_stage(recipe, name))


def _cannot_share(recipe: Recipe, one: Planned) -> Iterator[Problem]:
    if one.role == "train" and one.stage is not None:
        yield from parallel_problems(one.stage.parallel, one.processes)


def _verb(one: Planned) -> str:
    verbs = {
        "train": f"training {one.name!r}",
        "sample": f"sampling for {one.name!r}",
        "judge": f"the reward model of {one.name!r}",
        "recover": f"a recovery of {one.name!r}",
        "redraw": f"sampling for a recovery of {one.name!r}",
        "examine": "answering the benchmarks",
    }
    return verbs[one.role]


def _what(one: Planned, total: Range, hardware: Hardware) -> str:
    count = 1 if one.role == "examine" else one.processes
    return (
        f"{_verb(one)} needs {total.expected / GIB:.0f} GiB on each of {count} "
        f"device{'s' if count > 1 else ''} ({total.low / GIB:.0f} to {total.high / GIB:.0f}), and a "
        f"{hardware.device} has {hardware.memory_bytes / GIB:.0f}"
    )


def _remedy(recipe: Recipe, one: Planned, hardware: Hardware) -> str:
    tries: tuple[tuple[Role | None, str], ...] = ((None, FIRST), (one.role, ALONE))
    for role, words in tries:
        found = cheapest(recipe, one, hardware, partial(fits, name=one.name, role=role))
        if found:
            return words + "; or ".join(change.text for change in found)
    return "no change of one or two fields makes it fit: take a smaller model, or several changes"
