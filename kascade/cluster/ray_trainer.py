"""The trainer group: actors that make one update together (FSDP2), behind the face of one trainer.

When one of them is lost, all are started anew, and `WorkerLost` tells the stage's loop to go on from the last
training state. The driver's model always holds the whole, current weights.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kascade.cluster.ray_rollouts import weights_of
from kascade.learning.distributed import ShardedTrainer, WorkerLost
from kascade.learning.trainer import Example, Objective, Trainer
from kascade.recipe.schema import Optimizer
from kascade.recipe.workers import Workers

START_TIMEOUT_S = 300.0  # until all processes of a group have met


class TrainerActor:
    """One process of the group."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def pid(self) -> int:
        return os.getpid()

    def address(self) -> str:
        """Where the first process can be met."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return f"tcp://{socket.gethostbyname(socket.gethostname())}:{probe.getsockname()[1]}"

    def join(
        self, address: str, rank: int, world: int, model: PreTrainedModel, how: Mapping[str, Any]
    ) -> None:
        from datetime import timedelta

        from torch import distributed

        cuda = torch.cuda.is_available()
        distributed.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=address,
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=START_TIMEOUT_S),
        )
        self._rank = rank
        self._trainer = ShardedTrainer(model.to("cuda") if cuda else model, **how)

    def update(
        self, step: int, examples: Sequence[Example], objective: Objective, check: Callable[..., None]
    ) -> tuple[dict[str, float], dict[str, Tensor] | None]:
        """The update's metrics; of the first process also the weights after it."""
        metrics = self._trainer.update(step, examples, objective, check)
        return metrics, weights_of(self._trainer.model) if self._rank == 0 else None

    def save(self, folder: str, step: int, rollouts: Mapping[str, Tensor] | None, keep: int) -> None:
        self._trainer.save(Path(folder), step, rollouts, keep=keep)

    def load(self, folder: str) -> tuple[int, dict[str, Tensor] | None, dict[str, Tensor]]:
        rollouts: dict[str, Tensor] = {}
        step = self._trainer.load(Path(folder), rollouts)
        return step, weights_of(self._trainer.model) if self._rank == 0 else None, rollouts


class RayTrainer(Trainer):
    """A `Trainer` whose updates are made by actors. Raises WorkerLost when one of them goes."""

    def __init__(
        self,
        ray: Any,
        workers: Workers,
        model: PreTrainedModel,
        part: Optimizer,
        *,
        total_steps: int,
        micro_batch_tokens: int,
        pad_id: int,
    ) -> None:
        self.ray, self.workers, self.model = ray, workers, model
        self._how = {
            "part": part,
            "total_steps": total_steps,
            "micro_batch_tokens": micro_batch_tokens,
            "pad_id": pad_id,
        }
        self._beginning = ray.put(model)
        self._actors: list[Any] = []
        self._start()

    def pids(self) -> list[int]:
        return [int(pid) for pid in self.ray.get([actor.pid.remote() for actor in self._actors])]

    def update(
        self,
        step: int,
        examples: Sequence[Example],
        objective: Objective,
        check: Callable[[Mapping[str, float]], None] = lambda metrics: None,
    ) -> dict[str, float]:
        given = self.ray.put(list(examples))
        metrics, weights = self._all("update", step, given, objective, check)
        self._take(weights)
        found: dict[str, float] = metrics
        return found

    def save(
        self, folder: Path, step: int, rollouts: Mapping[str, Tensor] | None = None, *, keep: int = 2
    ) -> None:
        self._all("save", str(folder), step, rollouts, keep)

    def finish_saving(self) -> None:
        """Nothing is left to write: `save` returns when the actors have written."""

    def load(self, folder: Path, rollouts: dict[str, Tensor] | None = None) -> int:
        """As `Trainer.load`; without a state, the weights with which the stage began."""
        step, weights, found = self._all("load", str(folder))
        self._take(weights)
        if rollouts is not None:
            rollouts.update(found)
        return int(step)

    def close(self) -> None:
        for actor in self._actors:
            self.ray.kill(actor)

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[name])

    def _start(self) -> None:
        options = {"num_cpus": self.workers.cpus, "num_gpus": self.workers.gpus, "max_restarts": 0}
        make = self.ray.remote(TrainerActor).options(**options)
        threads = max(1, int(self.workers.cpus))
        self._actors = [make.remote(threads) for _ in range(self.workers.trainers)]
        address = self.ray.get(self._actors[0].address.remote())
        world = len(self._actors)
        self.ray.get(
            [
                actor.join.remote(address, rank, world, self._beginning, self._how)
                for rank, actor in enumerate(self._actors)
            ]
        )

    def _all(self, method: str, *arguments: Any) -> Any:
        """Call a method on all; returns what the first process says. Raises the actors' own errors."""
        calls = [getattr(actor, method).remote(*arguments) for actor in self._actors]
        waiting = list(calls)
        try:
            while waiting:  # whoever ends first speaks first: the others may wait for a lost one
                (ready, *_), waiting = self.ray.wait(waiting, num_returns=1)
                self.ray.get(ready)
        except self.ray.exceptions.RayActorError as error:
            self._restart()
            raise WorkerLost("a process that trains was lost") from error
        except self.ray.exceptions.RayTaskError as error:
            if self._somebody_is_gone():  # the others notice a broken connection before we notice the loss
                self._restart()
                raise WorkerLost("a process that trains was lost") from error
            raise
        return self.ray.get(calls[0])

    def _somebody_is_gone(self, patience_s: float = 5.0) -> bool:
        pings = [actor.pid.remote() for actor in self._actors]
        self.ray.wait(pings, num_returns=len(pings), timeout=patience_s)
        try:
            self.ray.get(pings, timeout=0)
        except (self.ray.exceptions.RayActorError, self.ray.exceptions.GetTimeoutError):
            return True
        return False

    def _restart(self) -> None:
        self.close()
        self._start()
