"""The native rollout engine: tokens in, tokens and log-probabilities out, on CPU and CUDA."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kascade.models.checksum import weights_checksum
from kascade.rollout.decoder import Decoder, make_decoder
from kascade.rollout.sampling import draw, stream_key, uniforms
from kascade.rollout.types import FinishReason, Prompt, Sample, SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(slots=True)
class _Row:
    """A sample in the making: which one of which prompt, its random stream, and what was drawn so far."""

    prompt: int
    sample: int
    key: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class NativeEngine:
    """Samples from a transformers model that stays where it is: weights are shared, never copied over.

    A prompt is computed once for all its samples; a finished row leaves at once and, where the decoder
    allows rows of different length, the next prompt takes its place. Each token's randomness depends on
    (prompt's seed, sample, position) only, so batching and order do not change what is drawn (but for
    the last bit of a logit, which can differ with the shape of a matrix product).
    """

    def __init__(self, model: PreTrainedModel, *, end_ids: Sequence[int], max_batch_rows: int = 256) -> None:
        """end_ids: tokens that end an answer. Raises ValueError when max_batch_rows is not positive."""
        if max_batch_rows < 1:
            raise ValueError(f"max_batch_rows must be positive, not {max_batch_rows}")
        self._model = model
        self._end_ids = frozenset(end_ids)
        self._max_rows = max_batch_rows
        self._decoder: Decoder = make_decoder(model)
        self._version = 0
        self.weights_checksum = weights_checksum(model)

    def load_weights(self, version: int) -> None:
        """Take over the model's current weights; what is sampled from now on carries `version`."""
        self._decoder.refresh()
        self._version = version
        self.weights_checksum = weights_checksum(self._model)

    @torch.inference_mode()
    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """For each prompt, its samples in order. Raises ValueError for an empty prompt."""
        if any(not prompt.token_ids for prompt in prompts):
            raise ValueError("a prompt has no tokens")
        training = self._model.training
        self._model.eval()
        self._decoder.start(min(self._max_rows, sum(prompt.num_samples for prompt in prompts)))
        try:
            return self._sample(prompts, params)
        finally:
            self._decoder.start(0)
            self._model.train(training)

    def _sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        done: dict[tuple[int, int], Sample] = {}
        waiting = _queue(prompts)
        rows: list[_Row] = []
        while waiting or rows:
            if waiting and self._has_room(len(rows)):
                fresh = self._admissible(waiting, len(rows), prompts)
                self._append(fresh, self._admit(fresh, prompts), params)
                rows += fresh
            else:
                last = torch.tensor([row.tokens[-1] for row in rows], device=self._model.device)
                self._append(rows, self._decoder.step(last), params)
            rows = self._retire(rows, params.max_new_tokens, done)
        return [[done[i, k] for k in range(prompt.num_samples)] for i, prompt in enumerate(prompts)]

    def _has_room(self, active: int) -> bool:
        """Refill in batches of an eighth of the rows: a prefill for every row that ends would cost more."""
        free = self._max_rows - active
        return active == 0 or (self._decoder.uneven and free >= max(1, self._max_rows // 8))

    def _admissible(self, waiting: deque[_Row], active: int, prompts: Sequence[Prompt]) -> list[_Row]:
        """Take from the queue what may start now."""
        fresh = [waiting.popleft()]
        length = len(prompts[fresh[0].prompt].token_ids)
        while waiting and active + len(fresh) < self._max_rows:
            if not self._decoder.uneven and len(prompts[waiting[0].prompt].token_ids) != length:
                break
            fresh.append(waiting.popleft())
        return fresh

    def _admit(self, fresh: Sequence[_Row], prompts: Sequence[Prompt]) -> Tensor:
        groups = [(i, len(list(rows))) for i, rows in groupby(fresh, key=lambda row: row.prompt)]
        return self._decoder.admit([prompts[i].token_ids for i, _ in groups], [n for _, n in groups])

    def _append(self, rows: Sequence[_Row], logits: Tensor, params: SamplingParams) -> None:
        keys = np.array([row.key for row in rows], dtype=np.uint64)
        positions = np.array([len(row.tokens) for row in rows], dtype=np.uint64)
        uniform = torch.from_numpy(uniforms(keys, positions)).to(logits.device)
        tokens, logprobs = draw(logits, uniform, params)
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.tokens.append(token)
            row.logprobs.append(logprob)

    def _retire(
        self, rows: list[_Row], max_new_tokens: int, done: dict[tuple[int, int], Sample]
    ) -> list[_Row]:
        """Move finished rows to `done`; the last rows take their places."""
        alive = []
        for index, row in enumerate(rows):
            stopped = row.tokens[-1] in self._end_ids
            if stopped or len(row.tokens) == max_new_tokens:
                reason: FinishReason = "stop" if stopped else "length"
                done[row.prompt, row.sample] = Sample(
                    tuple(row.tokens), tuple(row.logprobs), reason, self._version
                )
            else:
                alive.append(index)
        if len(alive) == len(rows):
            return rows
        order = _fill_holes(alive)
        self._decoder.retain(order)
        return [rows[index] for index in order]


def _queue(prompts: Sequence[Prompt]) -> deque[_Row]:
    """All samples, longest prompts first: room is made once, and neighbours pad each other little."""
    longest_first = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i].token_ids), i))
    return deque(
        _Row(i, sample, stream_key(prompts[i].seed, sample))
        for i in longest_first
        for sample in range(prompts[i].num_samples)
    )


def _fill_holes(alive: list[int]) -> list[int]:
    """The rows alive, ascending, as an order in which those below len(alive) stay where they are."""
    staying = {index for index in alive if index < len(alive)}
    movers = iter(index for index in alive if index >= len(alive))
    return [index if index in staying else next(movers) for index in range(len(alive))]
