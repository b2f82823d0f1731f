"""What several processes cannot train together; read from config.json, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kascade.errors import Fault
from kascade.models.precision import LOW
from kascade.recipe.groups import trainers_of
from kascade.recipe.identity import adapter_of, keeps_adapter
from kascade.recipe.order import parent_of
from kascade.recipe.parallel import parallel_problems
from kascade.recipe.schema import Recipe, StagePart

SPREAD = ("qwen3", "qwen3_moe", "nemotron_h")  # families whose shards are held to one process by tests
NUM_EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts")


def spread_faults(config: Mapping[str, Any], recipe: Recipe) -> Iterator[Fault]:
    """Every stage of several processes that they do not train as one would, with the reason."""
    for stage in recipe.stages:
        processes = trainers_of(recipe, stage)
        if processes > 1 or stage.parallel.experts > 1:
            yield from _stage_faults(config, recipe, stage, processes)


def _stage_faults(
    config: Mapping[str, Any], recipe: Recipe, stage: StagePart, processes: int
) -> Iterator[Fault]:
    where, kind, part = f"stages.{stage.name}", config.get("model_type"), stage.parallel
    for problem in parallel_problems(part, processes):
        yield Fault(f"{where}.parallel.{problem.path[0]}", problem.what, problem.allowed, problem.remedy)
    if kind not in SPREAD:
        what = f"{processes} processes are not known to learn what one learns for a {kind} model"
        yield Fault(where, what, ", ".join(SPREAD), "train it in one process")
    if recipe.model.precision in LOW:
        what = f"layers are swapped for {recipe.model.precision} after loading, which shards do not survive"
        yield Fault("model.precision", f"{stage.name}: {what}", "fp32, bf16", "train it in one process")
    start = parent_of(recipe, stage.name)
    if adapter_of(recipe, stage) is None and start is not None and keeps_adapter(recipe, start):
        what = f"it begins with the adapter of {start!r}, which {processes} processes do not merge"
        remedy = f"set adapter.at_end of {start!r} to merge, or let this stage train the adapter on"
        yield Fault(where, what, remedy=remedy)
    if stage.actors().trainers > 1 and recipe.model.draft_tokens is not None:
        what = f"{stage.name} has several trainers, whose sampler drafts no tokens"
        yield Fault("model.draft_tokens", what, remedy="leave it out, or use one trainer")
    if part.experts > 1:
        yield from _expert_faults(config, part.experts, f"{where}.parallel.experts")


def _expert_faults(config: Mapping[str, Any], groups: int, where: str) -> Iterator[Fault]:
    experts = next((int(config[name]) for name in NUM_EXPERTS if config.get(name)), 0)
    if not experts:
        yield Fault(where, "the model has no experts to spread", "1", "leave it out")
    elif experts % groups:
        yield Fault(where, f"{groups} groups do not divide {experts} experts", f"a divisor of {experts}")
