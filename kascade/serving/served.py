"""A checkpoint that is served: where it comes from, and how it answers in tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from kascade.errors import CheckpointError, Fault, UserError
from kascade.models.logprobs import RankedScores
from kascade.recipe.schema import ModelPart
from kascade.rollout.native import NativeEngine
from kascade.rollout.policy import Policy
from kascade.rollout.types import Prompt, Sample, SamplingParams
from kascade.serving.requests import ChatMessage
from kascade.serving.worker import Generation, ModelThread, OnToken
from kascade.storage.checkpoint import MANIFEST, CheckpointRef, verify
from kascade.storage.run_folder import RunFolder
from kascade.task import Message, Task


def checkpoint_folder(named: str) -> Path:
    """The folder of a model, named by a run (its final checkpoint), a checkpoint's folder or reference
    (`URI@sha256:DIGEST`), a model's folder, a hub id, or `builtin://NAME`. Raises UserError.
    """
    from kascade.models.load import resolve_source

    if "@sha256:" not in named:
        run = RunFolder(Path(named).expanduser())
        if not run.has_begun:
            return resolve_source(named)
        named = _final(run)
    try:
        folder, _ = verify(named)
    except CheckpointError as error:
        remedy = f"give the reference as a run's {MANIFEST} or `kascade explain` shows it"
        raise UserError(Fault(named, str(error), remedy=remedy)) from error
    return folder


def _final(run: RunFolder) -> str:
    """Where the checkpoint is now that a run ended with: run folders move. Raises UserError."""
    final = run.final_checkpoint()
    if final is None:
        remedy = "name one of its checkpoints: RUN/checkpoints/STAGE/ATTEMPT"
        raise UserError(Fault(str(run.root), "has no final checkpoint yet", remedy=remedy))
    digest = CheckpointRef.parse(final).digest
    return next((str(ref) for ref, _ in run.checkpoints() if ref.digest == digest), final)


@dataclass(frozen=True, slots=True)
class Served:
    """A loaded checkpoint. name: what clients call it. context: most tokens of prompt and answer.

    longest_token: the most characters that one token stands for.
    """

    name: str
    policy: Policy
    thread: ModelThread
    context: int | None
    longest_token: int

    @classmethod
    def load(cls, named: str, *, name: str | None = None, template: str = "own") -> Served:
        """Raises UserError where there is no such model, or it cannot be loaded."""
        folder = checkpoint_folder(named)
        part = ModelPart.model_validate({"source": str(folder), "chat_template": template})
        policy = Policy.load(folder, part)
        return cls.of(name or folder.name, policy)

    @classmethod
    def of(cls, name: str, policy: Policy) -> Served:
        """A policy with a thread of its own."""
        context = getattr(policy.model.config, "max_position_embeddings", None)
        longest = max(map(len, cast("Any", policy.tokenizer).get_vocab()), default=1)
        return cls(name, policy, ModelThread(policy, cast("NativeEngine", policy.engine)), context, longest)

    def task(
        self, messages: Sequence[ChatMessage], tools: Sequence[dict[str, Any]], *, thinking: bool
    ) -> Task:
        """A conversation as a task, which is what a chat template renders."""
        turns = tuple(cast("Message", _turn(message)) for message in messages)
        return Task("served", "chat", turns, {}, tools=tuple(tools), thinking=thinking)

    def generate(
        self,
        token_ids: Sequence[int],
        params: SamplingParams,
        *,
        num_samples: int = 1,
        seed: int | None = None,
        on_token: OnToken | None = None,
    ) -> tuple[Generation, Future[list[Sample]]]:
        """Put a prompt in line. seed None: a new one."""
        drawn = random.SystemRandom().getrandbits(63) if seed is None else seed & (2**63 - 1)
        asked = Generation(Prompt(tuple(token_ids), num_samples, drawn), params, on_token)
        return asked, self.thread.generate(asked)

    def score(self, token_ids: Sequence[int], top: int) -> Future[RankedScores]:
        """Log-probabilities of given tokens, in line."""
        return self.thread.score(token_ids, top)

    def room(self, num_prompt: int, asked: int | None, default: int) -> int:
        """Tokens to answer with. Raises ValueError where the prompt leaves none."""
        if self.context is None:
            return default if asked is None else asked
        left = self.context - num_prompt
        if left < (1 if asked is None else min(asked, 1)):
            raise ValueError(f"the prompt has {num_prompt} tokens, the model's context {self.context}")
        return min(default if asked is None else asked, max(left, 0))

    def check_length(self, num_characters: int) -> None:
        """Raises ValueError for a text that cannot fit, before it is turned into tokens: that takes long."""
        if self.context is not None and num_characters > self.context * self.longest_token:
            most = f"the model's context {self.context} tokens of up to {self.longest_token}"
            raise ValueError(f"the prompt has {num_characters:,} characters, {most}")

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text, as the tokenizer makes them. Raises ValueError for a text that cannot fit."""
        self.check_length(len(text))
        ids: list[int] = cast("Any", self.policy.tokenizer).encode(text)
        return ids


def _turn(message: ChatMessage) -> dict[str, Any]:
    """A turn as chat templates take it: no empty keys."""
    turn = {key: value for key, value in message.model_dump().items() if value is not None}
    turn["content"] = message.content or ""
    turn["role"] = "system" if message.role == "developer" else message.role
    return turn
