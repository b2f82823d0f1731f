"""Where a stage is recovered: on its own workers, or on those that the guard's recovery names.

A recovery learns from its own answers. Processes that one torchrun started draw none, so a stage that they
train (SFT, DPO) is recovered by Ray's actors.
"""

from __future__ import annotations

from kascade.recipe.cluster import RunsAs
from kascade.recipe.parallel import Parallel
from kascade.recipe.schema import Recipe, StagePart
from kascade.recipe.workers import Workers


def recovery_workers(recipe: Recipe, stage: StagePart) -> Workers:
    """Who trains and samples in a recovery of `stage`."""
    if stage.answers_by() is not None:
        return stage.actors()
    return recipe.guard.recovery.workers or Workers()


def recovery_parallel(recipe: Recipe, stage: StagePart) -> Parallel:
    """How they share the weights: as the stage's own do; others by shards, with the stage's expert groups."""
    workers, own = recovery_workers(recipe, stage), stage.parallel
    if not workers.distributed:
        return Parallel()
    if stage.answers_by() is not None:
        return own
    return Parallel(experts=own.experts if workers.trainers % own.experts == 0 else 1)


def recovery_shape(recipe: Recipe, stage: StagePart) -> RunsAs:
    """What runs a recovery of `stage`."""
    shape = recipe.cluster.shape_of(stage)
    return "rayjob" if shape == "trainjob" else shape
