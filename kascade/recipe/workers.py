"""Who trains and who samples, where one process is not enough.

Sources: [S3] Nemotron 3 Super (arXiv 2604.12374), [N3] Nemotron 3 Nano (arXiv 2512.20848), [RL] NeMo-RL,
whose truncation rules and bounds these are.
"""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kascade.recipe.checks import CrossCheckError, Problem
from kascade.recipe.parts import Part
from kascade.recipe.rules import Correction

PLACEMENT = {
    "max_losses",
    "cpus",
    "gpus",
    "driver_cpus",
    "driver_gpus",
    "room_timeout_s",
}  # weights know nothing of it


def count_actors(trainers: int, samplers: int) -> int:
    """Processes beside the stage's own, which is the trainer where there is one only."""
    return samplers + (trainers if trainers > 1 else 0)


class Workers(Part):
    """Ray actors of a stage. trainers 1 and samplers 0: one process does both, without Ray."""

    trainers: PositiveInt = Field(1, description="processes that share weights and optimiser (FSDP2)")
    samplers: int = Field(0, ge=0, description="rollout actors; 0: the trainer samples itself")
    asynchronous: bool = Field(
        False, description="sample the next step while this one is learnt, one step off [S3 RL]"
    )
    correction: Correction = Field(
        Correction(), description="importance weights of tokens that older weights sampled"
    )
    max_losses: PositiveInt = Field(
        3, description="actors that may be lost over one piece of work before the stage fails"
    )
    cpus: PositiveFloat = Field(1.0, description="of an actor")
    gpus: float = Field(0.0, ge=0, description="of an actor")
    driver_cpus: PositiveFloat = Field(
        1.0, description="in a RayJob: of the process that grades, scores with teachers, and publishes"
    )
    driver_gpus: float = Field(0.0, ge=0, description="of that process")
    room_timeout_s: PositiveInt = Field(
        300,
        description="wait so long for a cluster that has no room for all actors, because it grows or is busy",
    )

    @property
    def distributed(self) -> bool:
        return self.trainers > 1 or self.samplers > 0

    @property
    def num_actors(self) -> int:
        """Processes beside the stage's own."""
        return count_actors(self.trainers, self.samplers)

    @model_validator(mode="after")
    def _somebody_samples_meanwhile(self) -> Workers:
        if self.asynchronous and not self.samplers:
            what = "asynchronous, but no process samples while the trainer learns"
            raise CrossCheckError([Problem(("samplers",), what, allowed="1 or more")])
        return self


def half_each(processes: int) -> str:
    """As a recipe says it: half of so many devices train, the others sample."""
    train = max(1, processes // 2)
    return f"{{trainers: {train}, samplers: {max(1, processes - train)}, gpus: 1}}"
