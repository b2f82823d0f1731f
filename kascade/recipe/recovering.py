"""How a stage is recovered: on its own workers, or on those that the guard's recovery names.

A recovery learns from its own answers. Processes that one torchrun started draw none, so a stage that they
train (SFT, DPO) is recovered by Ray's actors.
"""

from __future__ import annotations

from kascade.environment_names import CONVERSATIONS
from kascade.recipe.cluster import RunsAs
from kascade.recipe.parallel import Parallel
from kascade.recipe.sampling import ConversationLimits
from kascade.recipe.schema import Recipe, Sampling, StagePart
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


def shapes_of(recipe: Recipe, stage: StagePart) -> set[RunsAs]:
    """What runs a stage's training and, where it may have recoveries, those."""
    shapes = {recipe.cluster.shape_of(stage)}
    return shapes | {recovery_shape(recipe, stage)} if recipe.guard.recovery.rounds else shapes


def recovery_sampling(recipe: Recipe) -> Sampling:
    """How a recovery draws: answers and conversations as long as the longest that a benchmark allows.

    Conversations: of the benchmarks that converse; of all, where only rows of stages do.
    """
    asked = [one for one in recipe.benchmarks if not one.source.of_another_tool] or list(recipe.benchmarks)
    talking = [one for one in asked if one.source.environment in CONVERSATIONS]
    limits = [one.sampling.conversation for one in talking or asked]
    longest = ConversationLimits(
        max_turns=max(one.max_turns for one in limits),
        max_tokens=max(one.max_tokens for one in limits),
        max_seconds=max(one.max_seconds for one in limits),
    )
    return Sampling(max_new_tokens=recipe.longest_answer, conversation=longest)


def recovery_row(recipe: Recipe) -> int:
    """Tokens of a recovery's longest row: of a whole conversation where some source has them."""
    sources = [one.source for one in recipe.benchmarks]
    sources += [mix.source for stage in recipe.stages for mix in stage.data]
    sampling = recovery_sampling(recipe)
    talks = any(one.environment in CONVERSATIONS for one in sources)
    return max(sampling.max_new_tokens, sampling.conversation.max_tokens if talks else 0)
