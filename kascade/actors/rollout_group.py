"""The rollout group: actors that sample, each with an engine of its own, behind the face of one engine.

Every sample's randomness follows from its prompt's seed, so work of a lost actor can be given to another and
comes back the same; each prompt is answered once, however many actors are lost. Weights come with a version
and a checksum, and an actor that holds others refuses to sample.
"""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kascade.errors import TrainingStopped
from kascade.recipe.schema import ModelPart
from kascade.recipe.workers import Workers
from kascade.rollout.handover import Handover, MakeEngine, Sampler
from kascade.rollout.types import Prompt, Sample, SamplingParams

CHUNKS_PER_ACTOR = 2  # of a batch: fewer leave actors idle at its end, more make smaller batches
log = logging.getLogger(__name__)


class RolloutActor(Sampler):
    """One sampler in a process of its own."""

    def __init__(
        self, folder: Path, base: Path | None, part: ModelPart, make: MakeEngine, threads: int
    ) -> None:
        torch.set_num_threads(threads)
        super().__init__(folder, base, part, make)

    def pid(self) -> int:
        return os.getpid()


@dataclass(slots=True)
class Chunk:
    """Some prompts of a batch, by their places in it, and how often their actor was lost."""

    places: list[int]
    losses: int = 0


@dataclass(slots=True)
class RayEngine:
    """A `RolloutEngine` whose sampling is done by actors, to which weights are handed over in folders.

    make: an actor's engine. weights_checksum: of what all actors hold; 0 before any were handed over.
    """

    ray: Any
    handover: Handover
    make: MakeEngine
    workers: Workers
    replaced: int = 0
    weights_checksum: int = 0
    _actors: list[Any] = field(default_factory=list)
    _pushed: tuple[Path, int, int] | None = None  # folder, version, checksum

    def pids(self) -> list[int]:
        """Process ids of the actors, on their machines."""
        return [int(pid) for pid in self.ray.get([actor.pid.remote() for actor in self._actors])]

    def load_weights(self, version: int) -> None:
        """Hand the weights over to all actors. Raises TrainingStopped when one then holds others."""
        folder, expected = self.handover.write(version)
        self._pushed = (folder, version, expected)
        while len(self._actors) < self.workers.samplers:
            self._actors.append(self._start(folder))
        pushes = [actor.load_weights.remote(*self._pushed) for actor in self._actors]
        for number, push in enumerate(pushes):
            try:
                self.weights_checksum = self.ray.get(push)
            except self.ray.exceptions.RayActorError:
                self._replace(number)

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """As one engine would; raises TrainingStopped when a piece of work keeps losing its actors."""
        if self._pushed is None:
            raise TrainingStopped("the samplers were given no weights yet")
        version = self._pushed[1]
        done: dict[int, list[Sample]] = {}
        waiting = deque(_chunks(len(prompts), CHUNKS_PER_ACTOR * len(self._actors)))
        busy: dict[Any, tuple[int, Chunk]] = {}
        idle = deque(range(len(self._actors)))
        while waiting or busy:
            while waiting and idle:
                number, chunk = idle.popleft(), waiting.popleft()
                given = [prompts[place] for place in chunk.places]
                busy[self._actors[number].sample.remote(version, given, params)] = (number, chunk)
            (ready, *_), _ = self.ray.wait(list(busy), num_returns=1)
            number, chunk = busy.pop(ready)
            try:
                found = self.ray.get(ready)
            except self.ray.exceptions.RayActorError as error:
                self._replace(number)
                waiting.appendleft(self._again(chunk, error))
            else:
                done.update(zip(chunk.places, found, strict=True))
            idle.append(number)
        return [done[place] for place in range(len(prompts))]

    def close(self) -> None:
        for actor in self._actors:
            self.ray.kill(actor)

    def _again(self, chunk: Chunk, error: Exception) -> Chunk:
        chunk.losses += 1
        if chunk.losses > self.workers.max_losses:
            raise TrainingStopped(
                f"{chunk.losses} samplers were lost over the same {len(chunk.places)} prompts: out of "
                "memory? To do: give the actors more memory, or lower sampling.max_new_tokens, and resume"
            ) from error
        return chunk

    def _start(self, folder: Path) -> Any:
        options = {"num_cpus": self.workers.cpus, "num_gpus": self.workers.gpus, "max_restarts": 0}
        make = self.ray.remote(RolloutActor).options(**options)
        return make.remote(
            folder, self.handover.base, self.handover.part, self.make, max(1, int(self.workers.cpus))
        )

    def _replace(self, number: int) -> None:
        """A new actor in a lost one's place, with the weights that the others hold."""
        self.replaced += 1
        log.warning("sampler %d was lost; a new one takes its place", number)
        if self._pushed is None:
            raise TrainingStopped("the samplers were given no weights yet")
        self._actors[number] = self._start(self._pushed[0])
        self.weights_checksum = self.ray.get(self._actors[number].load_weights.remote(*self._pushed))


def _chunks(count: int, pieces: int) -> list[Chunk]:
    size = max(1, math.ceil(count / max(1, pieces)))
    return [Chunk(list(range(start, min(start + size, count)))) for start in range(0, count, size)]
