"""How the weights of a stage are spread over processes, and where those lie that only score.

Nothing here changes what is learnt beyond the order of additions, so no part of it enters a checkpoint's key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from kascade.recipe.checks import CrossCheckError, Problem, entries_of
from kascade.recipe.parts import Part

Activations = Literal["keep", "recompute", "offload"]
FrozenWeights = Literal["device", "host"]


class Parallel(Part):
    """Processes that hold one model: FSDP2 shards, expert-parallel groups within them, and replicas."""

    shard: PositiveInt | None = Field(
        None, description="processes that share one copy of the weights; None: all, divided by replicate"
    )
    experts: PositiveInt = Field(
        1, description="processes of a shard group that hold different experts; must divide `shard`"
    )
    replicate: PositiveInt = Field(1, description="copies of the weights, such as one per node")

    @model_validator(mode="after")
    def _experts_divide_the_shard(self) -> Parallel:
        if self.shard is not None and self.shard % self.experts:
            what = f"{self.experts} expert groups do not divide {self.shard} processes"
            raise CrossCheckError([Problem(("experts",), what, allowed=f"a divisor of {self.shard}")])
        return self

    def shard_of(self, processes: int) -> int:
        """Processes that share one copy, of `processes` in all."""
        return self.shard or max(1, processes // self.replicate)


def parallel_problems(part: Parallel, processes: int) -> Iterator[Problem]:
    """Why `processes` processes cannot train as `part` says; paths start at `part`."""
    shard = part.shard_of(processes)
    if shard * part.replicate != processes:
        what = f"{shard} x {part.replicate} processes are asked for, and {processes} train"
        remedy = "leave `shard` out, or give the stage as many trainers"
        yield Problem(("shard",), what, f"shard x replicate = {processes}", remedy)
    elif shard % part.experts:
        what = f"{part.experts} expert groups do not divide {shard} processes"
        yield Problem(("experts",), what, f"a divisor of {shard}")


def resting_problems(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """Frozen weights, in a recipe given as JSON value, that cannot lie in the host's memory."""
    model = recipe.get("model")
    precision = model.get("precision") if isinstance(model, dict) else None
    for stage in entries_of(recipe, "stages"):
        if stage.value.get("frozen_weights") == "host" and precision in ("fp8", "nvfp4"):
            what = f"{precision} layers keep their weights on the device"
            yield Problem((*stage.path, "frozen_weights"), what, allowed="device")
