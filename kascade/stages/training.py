"""One stage in training: what every method works on, and the resumable loop over its steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from kascade.clock import Clock
from kascade.errors import TrainingStopped
from kascade.learning.group import Scored
from kascade.learning.metrics import append_metrics, truncate_metrics
from kascade.learning.sharded import WorkerLost
from kascade.learning.trainer import Trainer
from kascade.learning.trainers import stage_trainer
from kascade.models.mesh import rank
from kascade.recipe.schema import StagePart
from kascade.rollout.policy import Policy
from kascade.rollout.speculative import SpeculativeEngine
from kascade.seeds import derive_seed
from kascade.storage.progress import Progress
from kascade.storage.training_folder import TrainingFolder
from kascade.task import Domain, Task
from kascade.termination import TERMINATED, Stop, Stopped, stop_requests

StepMetrics = dict[str, float | str]
Teachers = Mapping[Domain, Scored]
StageT_co = TypeVar("StageT_co", bound=StagePart, covariant=True)
log = logging.getLogger(__name__)
SHOWN = ("reward", "loss", "reverse_kl")  # what a watcher of the progress file sees


class TaskSource(Protocol):
    """Draws the tasks of a step: the same for the same arguments, whatever was drawn before."""

    def draw(self, step: int, count: int) -> list[Task]: ...


@dataclass(slots=True)
class Training(Generic[StageT_co]):
    """The training of a stage: what is trained, on what, and where its curves and states are.

    stage: its part of the recipe. policy: trained in place. tasks: what it is trained on.
    name, seed: all random draws derive from these and the step; the name is the stage's unless given.
    folder: of curves and training states; None keeps neither. trainer: None: one of this process.
    teachers: frozen models by domain, for methods that have them. after_step: called with the number of steps
    done, the weights in place. rollouts: a batch that later updates learn from, too; part of the state.
    on_saved: called after each state. save_on_signal: SIGTERM ends the training after its state was saved.
    """

    stage: StageT_co
    policy: Policy
    tasks: TaskSource
    name: str = ""
    seed: int = 0
    folder: TrainingFolder | None = None
    progress: Progress | None = None
    clock: Clock = field(default_factory=Clock)
    trainer: Trainer | None = None
    teachers: Teachers = field(default_factory=dict)
    after_step: Callable[[int], None] = lambda done: None
    rollouts: dict[str, Tensor] = field(default_factory=dict)
    on_saved: Callable[[], None] = lambda: None
    save_on_signal: bool = False

    def __post_init__(self) -> None:
        self.name = self.name or self.stage.name

    def draw_seed(self, *parts: object) -> int:
        """A 63-bit seed of these parts under this training."""
        return derive_seed(self.seed, self.name, *parts)

    def make_trainer(self) -> Trainer:
        """The trainer of the policy: the one that was given, else one of this process.

        It is made as late as possible: measurements of the stage's start need the memory before.
        """
        self.trainer = self.trainer or stage_trainer(self.policy, self.stage)
        return self.trainer

    def run_steps(self, take_step: Callable[[int], StepMetrics]) -> None:
        """Take the steps that are still to do; killed at any moment, the next call gives the same weights.

        When a process that trains with others is lost, the steps since the last state are taken again. Raises
        TrainingStopped when more are lost over them than the stage bears.
        """
        trainer, before, losses = self.make_trainer(), -1, 0
        while True:
            try:
                try:
                    first = self._resume(trainer)
                    before, losses = first, losses if first == before else 0
                    self._take_steps(trainer, first, take_step)
                finally:
                    trainer.finish_saving()
                return
            except WorkerLost as lost:
                losses += 1
                if self.folder is None:
                    raise
                if losses > self.stage.actors().max_losses:
                    raise _too_many_lost(losses, before) from lost
                log.warning("%s; continuing from the last training state", lost)

    def _take_steps(self, trainer: Trainer, first: int, take_step: Callable[[int], StepMetrics]) -> None:
        stage = self.stage
        with stop_requests() if self.save_on_signal else nullcontext(Stop()) as stop:
            for step in range(first, stage.steps):
                with self._saved_when_stopped(trainer, step, stop):
                    metrics = take_step(step)
                    stop.held = True
                if isinstance(self.policy.engine, SpeculativeEngine):
                    metrics = merge(metrics, self.policy.engine.stats.metrics())
                self.policy.sync(step + 1)
                self._record(step, metrics)
                if (step + 1) % stage.save_every == 0 or step + 1 == stage.steps or stop.asked:
                    self._save(trainer, step + 1, self.rollouts)
                self.after_step(step + 1)
                self._leave_if_asked(trainer, stop, step + 1)

    @contextmanager
    def _saved_when_stopped(self, trainer: Trainer, step: int, stop: Stop) -> Iterator[None]:
        """While step `step` is taken: when SIGTERM comes, save the state before it, and leave.

        Once the weights change, the step is taken to its end first: half an update is no state.
        """
        before = dict(self.rollouts)
        optimizer = getattr(trainer, "optimizer", None)
        hook = optimizer and optimizer.register_step_pre_hook(lambda *_: setattr(stop, "held", True))
        try:
            stop.held = optimizer is None  # its processes save at the end of a step
            stop.check()
            yield
        except Stopped:
            if step:
                self._save(trainer, step, before)
            self._leave_if_asked(trainer, stop, step)
        finally:
            if hook is not None:
                hook.remove()

    def _leave_if_asked(self, trainer: Trainer, stop: Stop, done: int) -> None:
        if stop.asked:
            trainer.finish_saving()
            log.warning("SIGTERM: the state after %d steps is saved; run again to continue from there", done)
            raise SystemExit(TERMINATED)

    def _save(self, trainer: Trainer, done: int, rollouts: dict[str, Tensor]) -> None:
        if self.folder is None:
            return
        with self.clock.section("saving"):
            trainer.save(self.folder.states, done, rollouts, keep=self.stage.keep_states)
        self.on_saved()

    def skip(self, note: str) -> None:
        """Say in the curves why the stage took no step; the weights stay as they are."""
        log.warning("%s: %s", self.name, note)
        if self.folder is not None:
            truncate_metrics(self.folder.curves, 0)
            append_metrics(self.folder.curves, 0, {"note": note})

    def _resume(self, trainer: Trainer) -> int:
        if self.folder is None:
            return 0
        self.rollouts.clear()
        done = trainer.load(self.folder.states, self.rollouts)
        if rank() == 0:
            truncate_metrics(self.folder.curves, done)
        self.policy.sync(done)
        return done

    def _record(self, step: int, metrics: StepMetrics) -> None:
        if rank() != 0:  # the first process speaks for all
            return
        if self.folder is not None:
            append_metrics(self.folder.curves, step, metrics)
        if self.progress is not None:
            shown = {name: value for name in SHOWN if isinstance(value := metrics.get(name), float)}
            self.progress.update(step + 1, self.stage.steps, "steps", **shown)


def _too_many_lost(losses: int, step: int) -> TrainingStopped:
    return TrainingStopped(
        f"trainers were lost {losses} times over the steps after {step}: out of memory? To do: lower "
        "micro_batch_tokens, recompute or offload `activations`, or give the trainers more memory, and resume"
    )


def merge(*parts: Mapping[str, float | str]) -> StepMetrics:
    """One step's metrics from several sources, later ones first in authority."""
    return {name: value for part in parts for name, value in part.items()}
