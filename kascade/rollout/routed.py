"""Sampling that remembers which experts were used, so that the trainer can use the same ones.

Runs the model's own modules (the lean decoders route by themselves); prompts are computed once for all their
samples. See `kascade.models.routing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kascade.models.routing import RoutingRecorder, record_routing
from kascade.rollout.decoder import CacheDecoder
from kascade.rollout.sampling import draw, stream_key, uniforms
from kascade.rollout.types import FinishReason, Prompt, Sample, SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(slots=True)
class _Row:
    """A sample in the making: its random stream, what was drawn, and the experts of every token computed."""

    key: np.uint64
    prompt: int
    sample: int
    routing: list[Tensor]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class RoutedEngine:
    """Draws what the native engine draws, prompts of one length at a time, with `Sample.routing`."""

    def __init__(self, model: PreTrainedModel, *, end_ids: Sequence[int], max_batch_rows: int = 256) -> None:
        self._model = model
        self._end_ids = frozenset(end_ids)
        self._max_rows = max_batch_rows
        self._decoder = CacheDecoder(model)
        self._version = 0

    def load_weights(self, version: int) -> None:
        """What is sampled from now on carries `version`."""
        self._version = version

    @torch.inference_mode()
    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """For each prompt, its samples in order. Raises ValueError for an empty prompt or a dense model."""
        if any(not prompt.token_ids for prompt in prompts):
            raise ValueError("a prompt has no tokens")
        training = self._model.training
        self._model.eval()
        done: dict[tuple[int, int], Sample] = {}
        try:
            for batch in self._batches(prompts):
                with record_routing(self._model) as recorder:
                    self._sample_batch(prompts, batch, params, recorder, done)
        finally:
            self._decoder.start(0)
            self._model.train(training)
        return [[done[i, k] for k in range(prompt.num_samples)] for i, prompt in enumerate(prompts)]

    def _batches(self, prompts: Sequence[Prompt]) -> Iterator[list[int]]:
        """Prompts of one length, at most `max_batch_rows` samples of them (but at least one prompt)."""
        batch: list[int] = []
        rows = 0
        for i in sorted(range(len(prompts)), key=lambda i: (-len(prompts[i].token_ids), i)):
            fits = rows + prompts[i].num_samples <= self._max_rows
            if batch and (not fits or len(prompts[i].token_ids) != len(prompts[batch[0]].token_ids)):
                yield batch
                batch, rows = [], 0
            batch.append(i)
            rows += prompts[i].num_samples
        if batch:
            yield batch

    def _sample_batch(
        self,
        prompts: Sequence[Prompt],
        batch: Sequence[int],
        params: SamplingParams,
        recorder: RoutingRecorder,
        done: dict[tuple[int, int], Sample],
    ) -> None:
        copies = [prompts[i].num_samples for i in batch]
        self._decoder.start(sum(copies))
        logits = self._decoder.admit([prompts[i].token_ids for i in batch], copies)
        seen = torch.chunk(recorder.take(), len(batch))
        rows = [
            _Row(np.uint64(stream_key(prompts[i].seed, k)), i, k, [seen[number]])
            for number, i in enumerate(batch)
            for k in range(prompts[i].num_samples)
        ]
        while rows:
            _draw(rows, logits, params)
            alive = [n for n, row in enumerate(rows) if not self._finish(row, params, done)]
            if len(alive) < len(rows):
                rows = [rows[n] for n in alive]
                self._decoder.retain(alive)
            if rows:
                last = torch.tensor([row.tokens[-1] for row in rows], device=self._model.device)
                logits = self._decoder.step(last)
                for row, experts in zip(rows, recorder.take(), strict=True):
                    row.routing.append(experts[None])

    def _finish(self, row: _Row, params: SamplingParams, done: dict[tuple[int, int], Sample]) -> bool:
        """Whether the row is finished; then it is in `done`."""
        stopped = row.tokens[-1] in self._end_ids
        if not stopped and len(row.tokens) < params.max_new_tokens:
            return False
        reason: FinishReason = "stop" if stopped else "length"
        tokens, logprobs, routing = tuple(row.tokens), tuple(row.logprobs), torch.cat(row.routing).cpu()
        done[row.prompt, row.sample] = Sample(tokens, logprobs, reason, self._version, routing=routing)
        return True


def _draw(rows: Sequence[_Row], logits: Tensor, params: SamplingParams) -> None:
    positions = np.array([len(row.tokens) for row in rows], dtype=np.uint64)
    uniform = torch.from_numpy(uniforms(np.array([row.key for row in rows]), positions)).to(logits.device)
    tokens, logprobs = draw(logits, uniform, params)
    for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
        row.tokens.append(token)
        row.logprobs.append(logprob)
