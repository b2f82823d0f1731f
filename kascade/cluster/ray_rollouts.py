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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kascade.errors import TrainingStopped
from kascade.models.checksum import weights_checksum
from kascade.recipe.workers import Workers
from kascade.rollout.types import Prompt, RolloutEngine, Sample, SamplingParams

MakeEngine = Callable[[PreTrainedModel], RolloutEngine]
CHUNKS_PER_ACTOR = 2  # of a batch: fewer leave actors idle at its end, more make smaller batches
log = logging.getLogger(__name__)


def weights_of(model: PreTrainedModel) -> dict[str, Tensor]:
    """Parameters by name, on the CPU, each storage once."""
    return {name: parameter.detach().cpu().clone() for name, parameter in model.named_parameters()}


class RolloutActor:
    """One sampler with weights of its own. make: its engine, around its copy of the model."""

    def __init__(self, model: PreTrainedModel, make: MakeEngine, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        self._engine = make(self._model)
        self._version: int | None = None

    def pid(self) -> int:
        return os.getpid()

    def load_weights(self, weights: Mapping[str, Tensor], version: int, expected: int) -> int:
        """The checksum of the weights that the engine took over.

        Raises TrainingStopped when what arrived has another one than `expected`.
        """
        self._version = None  # until the new ones have proved right
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(weights[name])
        self._engine.load_weights(version)
        found = self._engine.weights_checksum
        if found != expected:
            raise TrainingStopped(
                f"weights version {version}: a sampler holds {found:016x}, the trainer {expected:016x}"
            )
        self._version = version
        return found

    def sample(self, version: int, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """Raises TrainingStopped when this actor holds other weights."""
        if version != self._version:
            raise TrainingStopped(f"a sampler holds weights {self._version}, {version} are asked for")
        return self._engine.sample(prompts, params)


@dataclass(slots=True)
class Chunk:
    """Some prompts of a batch, by their places in it, and how often their actor was lost."""

    places: list[int]
    losses: int = 0


@dataclass(slots=True)
class RayEngine:
    """A `RolloutEngine` whose sampling is done by actors, to which the weights of `model` are pushed.

    make: an actor's engine. weights_checksum: of what all actors hold; 0 before any were pushed.
    """

    ray: Any
    model: PreTrainedModel
    make: MakeEngine
    workers: Workers
    replaced: int = 0
    weights_checksum: int = 0
    _actors: list[Any] = field(default_factory=list)
    _pushed: tuple[Any, int, int] | None = None
    _template: Any = None

    def __post_init__(self) -> None:
        self._template = self.ray.put(self.model)
        self._actors = [self._start() for _ in range(self.workers.samplers)]

    def pids(self) -> list[int]:
        """Process ids of the actors, on their machines."""
        return [int(pid) for pid in self.ray.get([actor.pid.remote() for actor in self._actors])]

    def load_weights(self, version: int) -> None:
        """Push the weights to all actors. Raises TrainingStopped when one then holds others."""
        self._pushed = (self.ray.put(weights_of(self.model)), version, weights_checksum(self.model))
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

    def _start(self) -> Any:
        options = {"num_cpus": self.workers.cpus, "num_gpus": self.workers.gpus, "max_restarts": 0}
        make = self.ray.remote(RolloutActor).options(**options)
        return make.remote(self._template, self.make, max(1, int(self.workers.cpus)))

    def _replace(self, number: int) -> None:
        """A new actor in a lost one's place, with the weights that the others hold."""
        self.replaced += 1
        log.warning("sampler %d was lost; a new one takes its place", number)
        self._actors[number] = self._start()
        if self._pushed is not None:
            self.weights_checksum = self.ray.get(self._actors[number].load_weights.remote(*self._pushed))


def _chunks(count: int, pieces: int) -> list[Chunk]:
    size = max(1, math.ceil(count / max(1, pieces)))
    return [Chunk(list(range(start, min(start + size, count)))) for start in range(0, count, size)]
