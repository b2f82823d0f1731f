"""How much a run writes: checkpoints that stay, and training states that go when a stage has ended."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from kascade.recipe.fits import model_shape
from kascade.recipe.identity import adapter_of
from kascade.recipe.schema import Recipe
from kascade.recipe.stages import StagePart

GB = 1e9
WIDTHS = {"fp32": 4, "bf16": 2, "fp8": 2, "nvfp4": 2}  # bytes of a weight in a checkpoint
STATE = 14  # bytes of a trained parameter in a training state: bf16 weights, masters, two moments
STATE_FP32 = 12  # where the weights are the masters


class StorageNeed(BaseModel):
    """GB (10^9 bytes). kept: when the run has ended, without recoveries; worst: with all of them.

    peak: while a stage trains, its training states beside what is kept at worst.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kept_gb: float
    worst_gb: float
    peak_gb: float


def storage_need(recipe: Recipe) -> StorageNeed | None:
    """None for a model of unknown shape."""
    shape = model_shape(recipe)
    if shape is None:
        return None
    small = recipe.model.source.startswith("builtin://") and recipe.model.precision is None
    precision = "fp32" if small else recipe.model.precision or "bf16"
    whole = shape.size * WIDTHS[precision]
    sizes = [_checkpoint(recipe, stage, whole) for stage in recipe.stages]
    kept = whole + sum(sizes)
    worst = whole + sum(sizes) * (1 + recipe.guard.recovery.rounds)
    states = max(_states(recipe, stage, shape.size, precision) for stage in recipe.stages)
    return StorageNeed(kept_gb=kept / GB, worst_gb=worst / GB, peak_gb=(worst + states) / GB)


def _trained(recipe: Recipe, stage: StagePart) -> int | None:
    """Parameters of a stage's adapter; None where it trains all weights."""
    adapter, shape = adapter_of(recipe, stage), model_shape(recipe)
    return shape.adapter_size(adapter.rank, adapter.targets) if adapter and shape else None


def _checkpoint(recipe: Recipe, stage: StagePart, whole: float) -> float:
    adapter, size = adapter_of(recipe, stage), _trained(recipe, stage)
    return size * 4.0 if size is not None and adapter is not None and adapter.at_end == "keep" else whole


def _states(recipe: Recipe, stage: StagePart, parameters: int, precision: str) -> float:
    size = _trained(recipe, stage)
    each = STATE_FP32 if precision == "fp32" or size is not None else STATE
    return float(stage.keep_states * each * (size if size is not None else parameters))
