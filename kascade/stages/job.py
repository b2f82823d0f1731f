"""What all training stages share: a resumable loop over steps, seeded draws, and the policy they train."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kascade.clock import Clock
from kascade.data.chat import ChatFormat, template
from kascade.environments.base import Task
from kascade.errors import TrainingStopped
from kascade.learning.metrics import append_metrics, truncate_metrics
from kascade.learning.state import StateWriter, load_state
from kascade.learning.trainer import Trainer
from kascade.models.checksum import weights_checksum
from kascade.models.load import load_model, load_tokenizer
from kascade.recipe.schema import ModelPart, StagePart
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import RolloutEngine
from kascade.storage.progress import Progress

StepMetrics = dict[str, float | str]
log = logging.getLogger(__name__)
SHOWN = ("reward", "loss", "reverse_kl")  # what a watcher of the progress file sees


class TaskSource(Protocol):
    """Draws the tasks of a step: the same for the same arguments, whatever was drawn before."""

    def draw(self, step: int, count: int) -> list[Task]: ...


@dataclass(slots=True)
class Policy:
    """The model in training with its tokens and its sampler, which shares the model's storage."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    chat: ChatFormat
    engine: RolloutEngine
    version: int = 0

    @classmethod
    def load(cls, folder: Path, part: ModelPart) -> Policy:
        """The model in `folder`; a chat template that the recipe chose becomes the tokenizer's own."""
        model, tokenizer = load_model(folder), load_tokenizer(folder)
        if part.chat_template != "own":
            tokenizer.chat_template = template(part.chat_template)
        return cls.around(model, tokenizer, ChatFormat(tokenizer, part.chat_template))

    @classmethod
    def around(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat: ChatFormat) -> Policy:
        engine = NativeEngine(model, end_ids=chat.end_ids)
        policy = cls(model, tokenizer, chat, engine)
        policy.sync(0)
        return policy

    @property
    def pad_id(self) -> int:
        return self.chat.pad_id

    def sync(self, version: int) -> None:
        """The sampler takes over the current weights, stamped `version` (the number of updates)."""
        self.version = version
        self.engine.load_weights(version)
        self.check_weights()

    def check_weights(self) -> None:
        """Raise TrainingStopped when the sampler's weights are not the trainer's, bit for bit."""
        held, own = self.engine.weights_checksum, weights_checksum(self.model)
        if held != own:
            raise TrainingStopped(
                f"the sampler holds weights {held:016x} as version {self.version}, the trainer {own:016x}: they "
                "were changed without a sync, or the sync lost some. To do: resume; if it happens again, report it"
            )


@dataclass(slots=True)
class Job:
    """One training run of a stage.

    name, seed: all random draws derive from these and the step. training: folder of curves and training
    state; None keeps neither. after_step: called with the number of steps done, the weights in place.
    rollouts: a batch that later updates learn from, too; part of the training state.
    """

    name: str
    seed: int
    clock: Clock = field(default_factory=Clock)
    training: Path | None = None
    progress: Progress | None = None
    after_step: Callable[[int], None] = lambda done: None
    rollouts: dict[str, Tensor] = field(default_factory=dict)

    def draw_seed(self, *parts: object) -> int:
        """A 63-bit seed of these parts under this job."""
        return derive_seed(self.seed, self.name, *parts)

    def run_steps(
        self, policy: Policy, trainer: Trainer, part: StagePart, take_step: Callable[[int], StepMetrics]
    ) -> None:
        """Take the steps that are still to do; killed at any moment, the next call gives the same weights."""
        if self.training is None:
            for step in range(part.steps):
                self._step(policy, step, part.steps, take_step)
            return
        begin = self._resume(policy, trainer, self.training)
        with StateWriter(self.training / "state", part.keep_states) as writer:
            for step in range(begin, part.steps):
                self._step(policy, step, part.steps, take_step)
                if (step + 1) % part.save_every == 0 or step + 1 == part.steps:
                    with self.clock.section("saving"):
                        writer.save(step + 1, trainer.model, trainer.optimizer, self.rollouts)

    def _step(self, policy: Policy, step: int, steps: int, take_step: Callable[[int], StepMetrics]) -> None:
        metrics = take_step(step)
        policy.sync(step + 1)
        self._record(step, steps, metrics)
        self.after_step(step + 1)

    def skip(self, note: str) -> None:
        """Say in the curves why the stage took no step; the weights stay as they are."""
        log.warning("%s: %s", self.name, note)
        if self.training is not None:
            truncate_metrics(self.training / "metrics.jsonl", 0)
            append_metrics(self.training / "metrics.jsonl", 0, {"note": note})

    def _resume(self, policy: Policy, trainer: Trainer, training: Path) -> int:
        """Continue from the newest intact state: how many steps it has done."""
        done = load_state(training / "state", trainer.model, trainer.optimizer, self.rollouts)
        truncate_metrics(training / "metrics.jsonl", done)
        policy.sync(done)
        return done

    def _record(self, step: int, steps: int, metrics: StepMetrics) -> None:
        if self.training is not None:
            append_metrics(self.training / "metrics.jsonl", step, metrics)
        if self.progress is not None:
            shown = {name: value for name in SHOWN if isinstance(value := metrics.get(name), float)}
            self.progress.update(step + 1, steps, "steps", **shown)


def stage_trainer(policy: Policy, part: StagePart) -> Trainer:
    """The trainer of a stage's policy, as its part of the recipe says."""
    return Trainer(
        policy.model,
        part.optimizer,
        total_steps=part.steps,
        micro_batch_tokens=part.micro_batch_tokens,
        pad_id=policy.pad_id,
    )


def derive_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def merge(*parts: Mapping[str, float | str]) -> StepMetrics:
    """One step's metrics from several sources, later ones first in authority."""
    return {name: value for part in parts for name, value in part.items()}
