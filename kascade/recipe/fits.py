"""Whether every stage of a recipe fits its hardware, with what, and what would make it fit.

One row of the plan for each group of processes that are alike: those that train a stage, those that sample
for it, and those of its recovery where that needs more. `Plan.memory` holds the rows. Hours and money can be
taken from the same `MemoryGroup`s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from kascade.recipe.changes import Change, cheapest
from kascade.recipe.checks import Problem
from kascade.recipe.hardware import GIB, Hardware
from kascade.recipe.identity import adapter_of, keeps_adapter
from kascade.recipe.memory import Layout, Range, memory_of, sampler_memory, total_of
from kascade.recipe.methods import Stage, method_of
from kascade.recipe.order import teachers_of
from kascade.recipe.recovering import recovery_parallel, recovery_workers
from kascade.recipe.schema import Recipe
from kascade.recipe.shapes import ModelShape, config_of, shape_of

RECOVERY_TEACHERS = 2  # the best checkpoint of what was lost, and the stage's own result


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

    role: train, sample or recover. parts: GiB on one device by name. fits: whether `total.expected` does.
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


@dataclass(frozen=True, slots=True)
class Planned:
    """A group before it is counted."""

    stage: Stage
    role: str
    processes: int
    layout: Layout


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
    config = config_of(recipe.model.source)
    return shape_of(config) if config is not None else None


def _counted(shape: ModelShape, one: Planned, hardware: Hardware) -> MemoryGroup:
    parts = parts_of(shape, one)
    total = total_of(parts)
    return MemoryGroup(
        stage=one.stage.name,
        role=one.role,
        processes=one.processes,
        parts={name: Amount.of(amount) for name, amount in parts.items()},
        total=Amount.of(total),
        fits=total.expected <= hardware.memory_bytes,
    )


def parts_of(shape: ModelShape, one: Planned) -> dict[str, Range]:
    """Bytes on one device of a group, by name."""
    return sampler_memory(shape, one.layout) if one.role == "sample" else memory_of(shape, one.layout)


def planned_groups(recipe: Recipe) -> Iterator[Planned]:
    """Every group of processes, in the order of the stages."""
    for stage in recipe.stages:
        layout = layout_of(recipe, stage)
        processes = trainers_of(recipe, stage)
        yield Planned(stage, "train", processes, layout)
        if stage.actors().samplers:
            yield Planned(stage, "sample", stage.actors().samplers, _sampling(recipe, stage, layout))
        recovery, others = _recovering(recipe, stage, layout), recovery_workers(recipe, stage).trainers
        if recipe.guard.recovery.rounds and recovery != layout:
            yield Planned(stage, "recover", others, recovery)


def trainers_of(recipe: Recipe, stage: Stage) -> int:
    """Processes that train a stage together: Ray's actors, or a torchrun's, one for each accelerator.

    torchrun starts them in a job of several nodes as in the step's own pod.
    """
    if method_of(stage).cluster_job == "rayjob":
        return stage.actors().trainers
    placement = recipe.cluster.placement(stage.name)
    nodes = placement.nodes if recipe.cluster.shape_of(stage) == "trainjob" else 1
    return nodes * max(1, placement.accelerators)


def layout_of(recipe: Recipe, stage: Stage) -> Layout:
    """What a stage's training keeps on one of its processes."""
    processes = trainers_of(recipe, stage)
    adapter = adapter_of(recipe, stage)
    whole, adapters = _teachers(recipe, stage)
    alone = processes == 1
    samples_here = not stage.actors().samplers and recipe.model.rollout.vllm.served is None
    sampling = stage.answers_by()
    longest = sampling.max_new_tokens if sampling is not None else stage.longest_given() or 0
    return Layout(
        precision=recipe.model.precision or "bf16",
        shard=stage.parallel.shard_of(processes),
        experts=stage.parallel.experts,
        activations=stage.activations,
        tokens=max(stage.micro_batch_tokens, longest),
        adapter=(adapter.rank, adapter.targets) if adapter is not None else None,
        whole_teachers=whole,
        teachers_rest=stage.frozen_weights == "host",
        adapter_teachers=adapters,
        samples=_rows(recipe, stage) if alone and samples_here else None,
        native=recipe.model.rollout.engine == "native",
    )


def _rows(recipe: Recipe, stage: Stage) -> tuple[int, int]:
    """Rows that are sampled at once and the longest of them; (0, 0) for a stage that samples nothing.

    vLLM fills the memory it is given and lets rows wait: there must be room for one.
    """
    sampling = stage.answers_by()
    if sampling is None:
        return 0, 0
    rollout = recipe.model.rollout
    most = rollout.max_batch_rows if rollout.engine == "native" else 1
    return min(stage.samples_per_step, most), sampling.max_new_tokens


def _teachers(recipe: Recipe, stage: Stage) -> tuple[int, int]:
    """Frozen models that score for a stage: whole ones, and adapters over its own base."""
    over_base = adapter_of(recipe, stage) is not None
    references, judges = stage.copies_that_score()
    names = teachers_of(recipe, stage.name)
    kept = [name for name in names if over_base and keeps_adapter(recipe, name)]
    whole, adapters = len(names) - len(kept) + judges, len(kept)
    return (whole, adapters + references) if over_base else (whole + references, adapters)


def _recovering(recipe: Recipe, stage: Stage, layout: Layout) -> Layout:
    """The layout of a stage's recovery: distillation with answers as long as the longest benchmark's."""
    over_base = layout.adapter is not None
    workers, parallel = recovery_workers(recipe, stage), recovery_parallel(recipe, stage)
    rule, samples = recipe.guard.recovery, None
    if not workers.distributed and recipe.model.rollout.vllm.served is None:
        rows = min(rule.prompts_per_step * rule.rollouts_per_prompt, recipe.model.rollout.max_batch_rows)
        samples = (rows, recipe.longest_answer)
    return replace(
        layout,
        shard=parallel.shard_of(workers.trainers),
        experts=parallel.experts,
        tokens=max(stage.micro_batch_tokens, recipe.longest_answer),
        whole_teachers=0 if over_base else RECOVERY_TEACHERS,
        adapter_teachers=RECOVERY_TEACHERS if over_base else 0,
        samples=samples,
    )


def _sampling(recipe: Recipe, stage: Stage, layout: Layout) -> Layout:
    """A process that samples alone: a whole model, cut over the devices that the engine spreads it to."""
    rollout = recipe.model.rollout
    cut = rollout.vllm.tensor_parallel_size if rollout.engine == "vllm" else 1
    alone = replace(layout, adapter=None, whole_teachers=0, adapter_teachers=0)
    return replace(alone, shard=cut, samples=_rows(recipe, stage))


def memory_problems(recipe: Recipe) -> Iterator[Problem]:
    """What does not fit the hardware, each with the three cheapest changes that would make it fit."""
    hardware, shape = recipe.hardware, model_shape(recipe)
    if hardware is None or shape is None:
        return
    refused: set[str] = set()
    for one in planned_groups(recipe):
        index = recipe.stages.index(one.stage)
        yield from _device_problems(recipe, hardware, one, index)
        total = total_of(parts_of(shape, one))
        if total.expected > hardware.memory_bytes and one.stage.name not in refused:
            refused.add(one.stage.name)  # what cannot train is not refused for its recovery, too
            yield Problem(
                ("stages", index), _what(one, total, hardware), remedy=_remedy(shape, one, hardware)
            )


def _device_problems(recipe: Recipe, hardware: Hardware, one: Planned, index: int) -> Iterator[Problem]:
    if one.role != "train":
        return
    stage = one.stage
    samplers = stage.actors().samplers
    each = recipe.model.rollout.vllm.tensor_parallel_size if recipe.model.rollout.engine == "vllm" else 1
    needed = one.processes + samplers * each
    if needed > hardware.devices:
        what = f"{stage.name!r} needs {needed} devices, and the hardware has {hardware.devices}"
        remedy = "ask for fewer trainers or samplers, or raise hardware.nodes"
        yield Problem(("stages", index), what, remedy=remedy)


def _what(one: Planned, total: Range, hardware: Hardware) -> str:
    verb = {"train": "training", "sample": "sampling for", "recover": "a recovery of"}[one.role]
    return (
        f"{verb} {one.stage.name!r} needs {total.expected / GIB:.0f} GiB on each of {one.processes} "
        f"device{'s' if one.processes > 1 else ''} ({total.low / GIB:.0f} to {total.high / GIB:.0f}), and a "
        f"{hardware.device} has {hardware.memory_bytes / GIB:.0f}"
    )


def _remedy(shape: ModelShape, one: Planned, hardware: Hardware) -> str:
    def needs(layout: Layout) -> float:
        return total_of(parts_of(shape, replace(one, layout=layout))).expected

    found: list[Change] = cheapest(one.layout, needs, hardware, sampling=one.role == "sample")
    if not found:
        return "no change of this stage alone makes it fit: take a smaller model"
    return "cheapest first: " + "; or ".join(change.text for change in found)
