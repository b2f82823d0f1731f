"""The trainer group: actors that hold one model together and update it, behind the face of one trainer.

Ray starts the processes and carries examples, scores and metrics. Weights stay in the group: every process
reads its shards from a folder, and what samplers need is written to folders. When a process is lost, all are
started anew, and `WorkerLost` tells the stage's loop to continue from the last training state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kascade.actors.trainer_actor import Start, TrainerActor
from kascade.learning.example import Example, Objective
from kascade.learning.group import POLICY, GroupModel, ScoreTokens
from kascade.learning.scoring import ScoreLogprobs
from kascade.learning.sharded import WorkerLost
from kascade.learning.trainer import Trainer
from kascade.recipe.workers import Workers
from kascade.rollout.canary import Rows
from kascade.rollout.weight_sync import WeightSender


@dataclass
class RayTrainer(Trainer):
    """A `Trainer` whose updates are made by actors. Raises WorkerLost when one of them goes."""

    ray: Any
    workers: Workers
    start: Start
    tokenizer: PreTrainedTokenizerBase
    base: str | None = None  # digest of the checkpoint that the adapter in training belongs to

    def __post_init__(self) -> None:
        self._actors: list[Any] = []
        self._models: dict[str, tuple[Path, Path | None]] = {}
        self._launch()

    def pids(self) -> list[int]:
        return [int(pid) for pid in self.ray.get([actor.pid.remote() for actor in self._actors])]

    @property
    def scored(self) -> GroupModel:
        """The model in training, to score with."""
        return GroupModel(self, POLICY, self.start.folder)

    def update(
        self,
        step: int,
        examples: Sequence[Example],
        objective: Objective,
        check: Callable[[Mapping[str, float]], None] = lambda metrics: None,
    ) -> dict[str, float]:
        found: dict[str, float] = self._all("update", step, self.ray.put(list(examples)), objective, check)[0]
        return found

    def save(
        self, folder: Path, step: int, rollouts: Mapping[str, Tensor] | None = None, *, keep: int = 2
    ) -> None:
        """Take the state; every process writes its shards while training continues."""
        self._all("save", folder, step, rollouts, keep)

    def finish_saving(self) -> None:
        self._all("finish_saving")

    def load(self, folder: Path, rollouts: dict[str, Tensor] | None = None) -> int:
        """As `Trainer.load`; without a state, the weights with which the stage began."""
        step, found = self._all("load", folder)[0]
        if rollouts is not None:
            rollouts.update(found)
        return int(step)

    def add_model(self, name: str, folder: Path, base: Path | None = None) -> GroupModel:
        """A frozen model beside the one in training, spread as that is. base: of the adapter in `folder`."""
        self._all("add_model", name, folder, base)
        self._models[name] = folder, base
        return GroupModel(self, name, folder)

    def score(self, name: str, examples: Sequence[Example], score: ScoreTokens, **how: int) -> list[Tensor]:
        """`score_examples` under the model called `name`: each process scores its share."""
        parts = self._all("score", name, self.ray.put(list(examples)), score, how)
        return [values for part in parts for values in part]

    def checksum_of(self, name: str) -> int:
        """`weights_checksum` of a model that the group holds, as a sampler would have it."""
        return int(self._all("checksum_of", name)[0])

    def checksum(self) -> int:
        return self.checksum_of(POLICY)

    def computes_in(self) -> str:
        return str(self._all("computes_in")[0])

    def send(self, sender: WeightSender) -> None:
        """Hand the weights over from where they are: none pass through this process."""
        self._all("send", sender)

    def logprobs_of(self, rows: Rows) -> list[Tensor]:
        examples = [Example(list(row), [False] + [True] * (len(row) - 1)) for row in rows]
        how = {"micro_batch_tokens": max(map(len, rows)), "pad_id": self.start.pad_id}
        return self.score(POLICY, examples, ScoreLogprobs(), **how)

    def write(self, folder: Path) -> None:
        """Write what samplers need: an adapter, or all weights under the hub's names, layer by layer."""
        self._all("write", folder, None if self.start.adapter is None else self.base or "")
        self.tokenizer.save_pretrained(folder)

    def write_whole(self, folder: Path) -> None:
        """Write all weights, an adapter merged."""
        self._all("write", folder, None)
        self.tokenizer.save_pretrained(folder)

    def close(self) -> None:
        for actor in self._actors:
            self.ray.kill(actor)

    def _launch(self) -> None:
        options = {"num_cpus": self.workers.cpus, "num_gpus": self.workers.gpus, "max_restarts": 0}
        make = self.ray.remote(TrainerActor).options(**options)
        threads = max(1, int(self.workers.cpus))
        self._actors = [make.remote(threads) for _ in range(self.workers.trainers)]
        address = self.ray.get(self._actors[0].address.remote())
        world = len(self._actors)
        joining = [actor.join.remote(address, rank, world) for rank, actor in enumerate(self._actors)]
        self.ray.get(joining)
        self.ray.get([actor.begin.remote(self.start) for actor in self._actors])
        for name, where in self._models.items():
            self.ray.get([actor.add_model.remote(name, *where) for actor in self._actors])

    def _all(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method on all; returns what they say, first process first. Raises the actors' own errors."""
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
        found: list[Any] = self.ray.get(calls)
        return found

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
        self._launch()
