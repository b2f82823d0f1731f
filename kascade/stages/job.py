"""What all training stages share: a resumable loop over steps, seeded draws, and the policy they train."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kascade.clock import Clock
from kascade.data.chat import ChatFormat, template
from kascade.environments.base import Task
from kascade.errors import Fault, TrainingStopped, UserError
from kascade.learning.distributed import ShardedTrainer, WorkerLost, rank, world
from kascade.learning.metrics import append_metrics, truncate_metrics
from kascade.learning.model_trainer import ModelTrainer
from kascade.learning.trainer import Trainer
from kascade.models.checksum import weights_checksum
from kascade.models.load import load_model, load_tokenizer
from kascade.recipe.schema import ModelPart, Rollout, SFTStage, StagePart
from kascade.rollout.engines import make_drafting_engine, make_engine, make_routed_engine
from kascade.rollout.speculative import SpeculativeEngine
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
    rollout: Rollout = field(default_factory=Rollout)
    version: int = 0

    @classmethod
    def load(cls, folder: Path, part: ModelPart, *, sampled_elsewhere: bool = False) -> Policy:
        """The model in `folder`; a chat template that the recipe chose becomes the tokenizer's own.

        sampled_elsewhere: other processes will do so; an engine that would take this one's memory stays out.
        """
        model = load_model(folder, precision=part.precision, low_precision=part.low_precision)
        tokenizer = load_tokenizer(folder)
        here = part.rollout.model_copy(update={"engine": "native"}) if sampled_elsewhere else part.rollout
        if part.chat_template != "own":
            tokenizer.chat_template = template(part.chat_template)
        policy = cls.around(model, tokenizer, ChatFormat(tokenizer, part.chat_template), here)
        policy.rollout = part.rollout
        if part.draft_tokens is not None and not sampled_elsewhere:
            policy.use_engine(make_drafting_engine(model, tokenizer, policy.chat, part.draft_tokens))
        return policy

    @classmethod
    def around(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        chat: ChatFormat,
        rollout: Rollout = Rollout(),  # noqa: B008 - frozen
    ) -> Policy:
        engine = make_engine(model, tokenizer, chat, rollout)
        policy = cls(model, tokenizer, chat, engine, rollout)
        policy.sync(0)
        return policy

    @property
    def pad_id(self) -> int:
        return self.chat.pad_id

    def use_engine(self, engine: RolloutEngine) -> None:
        """Sample with `engine` from now on."""
        self.engine = engine
        self.sync(self.version)

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
                f"the sampler holds weights {held:016x} as version {self.version}, the trainer {own:016x}: "
                "they were changed without a sync, or the sync lost some. To do: resume; if it happens "
                "again, report it"
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
        """Take the steps that are still to do; killed at any moment, the next call gives the same weights.

        When a process that trains with others is lost, the steps since the last state are taken again.
        """
        while True:
            try:
                self._take_steps(policy, trainer, part, take_step)
                return
            except WorkerLost as lost:
                if self.training is None:
                    raise
                log.warning("%s; going on from the last training state", lost)
            finally:
                trainer.finish_saving()

    def _take_steps(
        self, policy: Policy, trainer: Trainer, part: StagePart, take_step: Callable[[int], StepMetrics]
    ) -> None:
        for step in range(self._resume(policy, trainer), part.steps):
            metrics = take_step(step)
            if isinstance(policy.engine, SpeculativeEngine):
                metrics = merge(metrics, policy.engine.stats.metrics())
            policy.sync(step + 1)
            self._record(step, part.steps, metrics)
            if self.training and ((step + 1) % part.save_every == 0 or step + 1 == part.steps):
                with self.clock.section("saving"):
                    folder = self.training / "state"
                    trainer.save(folder, step + 1, self.rollouts, keep=part.keep_states)
            self.after_step(step + 1)

    def skip(self, note: str) -> None:
        """Say in the curves why the stage took no step; the weights stay as they are."""
        log.warning("%s: %s", self.name, note)
        if self.training is not None:
            truncate_metrics(self.training / "metrics.jsonl", 0)
            append_metrics(self.training / "metrics.jsonl", 0, {"note": note})

    def _resume(self, policy: Policy, trainer: Trainer) -> int:
        if self.training is None:
            return 0
        self.rollouts.clear()
        done = trainer.load(self.training / "state", self.rollouts)
        if rank() == 0:
            truncate_metrics(self.training / "metrics.jsonl", done)
        policy.sync(done)
        return done

    def _record(self, step: int, steps: int, metrics: StepMetrics) -> None:
        if rank() != 0:  # the first process speaks for all
            return
        if self.training is not None:
            append_metrics(self.training / "metrics.jsonl", step, metrics)
        if self.progress is not None:
            shown = {name: value for name in SHOWN if isinstance(value := metrics.get(name), float)}
            self.progress.update(step + 1, steps, "steps", **shown)


def stage_trainer(policy: Policy, part: StagePart) -> Trainer:
    """The trainer of a stage's policy, as its part of the recipe says."""
    common: dict[str, Any] = {
        "total_steps": part.steps,
        "micro_batch_tokens": part.micro_batch_tokens,
        "pad_id": policy.pad_id,
    }
    if world() > 1:
        refuse_alone_only(part)
        return ShardedTrainer(policy.model, part.optimizer, **common)
    if part.moe is not None and part.moe.routing_replay and not isinstance(part, SFTStage):
        policy.use_engine(make_routed_engine(policy.model, policy.tokenizer, policy.chat))
    return ModelTrainer(policy.model, part.optimizer, **common, moe=part.moe, mtp=part.mtp)


def refuse_alone_only(part: StagePart) -> None:
    """Raise UserError for what a trainer spread over processes does not do."""
    named = [name for name in ("moe", "mtp") if getattr(part, name) is not None]
    if named:
        what = "is not there when several processes train together"
        remedy = "leave it out, or train in one process"
        raise UserError([Fault(f"stage {part.name!r} {name}", what, remedy=remedy) for name in named])


def derive_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part and on nothing else."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def merge(*parts: Mapping[str, float | str]) -> StepMetrics:
    """One step's metrics from several sources, later ones first in authority."""
    return {name: value for part in parts for name, value in part.items()}
