"""The native rollout engine: tokens in, tokens and log-probabilities out, on CPU and CUDA."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from kascade.models.activations import evaluated
from kascade.models.checksum import weights_checksum
from kascade.rollout.decoder import Decoder, make_decoder
from kascade.rollout.ending import Ending
from kascade.rollout.rows import PendingAnswer, Record, Rows, Watch
from kascade.rollout.sampling import draw, uniforms
from kascade.rollout.types import Prompt, Sample, SamplingParams

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

SPARE_SHARE = 16  # finished rows leave when they are this fraction of all: moving rows costs, too


class NativeEngine:
    """Samples from a transformers model that stays where it is: weights are shared, never copied over.

    A prompt is computed once for all its answers; finished rows leave and, where the decoder allows rows of
    different length, the next prompts take their places. Each token's randomness depends on (prompt's
    seed, sample, position) only, so batching and order do not change what is drawn (but for the last bit of
    a logit, which can differ with the shape of a matrix product).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        end_ids: Sequence[int],
        think_end_ids: Sequence[int] = (),
        decode: Callable[[Sequence[int]], str] | None = None,
        max_batch_rows: int = 256,
        decoder: Decoder | None = None,
    ) -> None:
        """end_ids: tokens that end an answer. think_end_ids: the tokens of `</think>`, for thinking budgets.
        decode: text of tokens, for stop texts. decoder: None: the fastest that knows the model.

        Raises ValueError when max_batch_rows is not positive.
        """
        if max_batch_rows < 1:
            raise ValueError(f"max_batch_rows must be positive, not {max_batch_rows}")
        self._model = model
        self._end_ids, self._think_end_ids, self._decode = tuple(end_ids), tuple(think_end_ids), decode
        self._max_rows = max_batch_rows
        self._decoder = decoder or make_decoder(model)
        self._version = 0
        self.weights_checksum = weights_checksum(model)

    def load_weights(self, version: int) -> None:
        """Take over the model's current weights; what is sampled from now on carries `version`."""
        self._decoder.refresh()
        self._version = version
        self.weights_checksum = weights_checksum(self._model)

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """For each prompt, its answers in order, a greedy one first.

        Raises ValueError for an empty prompt, or for a budget or stop text that the engine was not made for.
        """
        return self.sample_watched(prompts, params, None)

    @torch.inference_mode()
    def sample_watched(
        self, prompts: Sequence[Prompt], params: SamplingParams, watch: Watch | None
    ) -> list[list[Sample]]:
        """`sample`, with each token shown to `watch` once it is drawn. An exception of `watch` ends it."""
        if any(not prompt.token_ids for prompt in prompts):
            raise ValueError("a prompt has no tokens")
        ending = self.make_ending(prompts, params)
        self._decoder.start(min(self._max_rows, sum(prompt.num_answers for prompt in prompts)))
        try:
            with evaluated(self._model):
                record = Record(sum(prompt.num_answers for prompt in prompts), watch)
                return self._sample(prompts, params, ending, record)
        finally:
            self._decoder.start(0)

    def make_ending(self, prompts: Sequence[Prompt], params: SamplingParams) -> Ending:
        """What ends the answers of one call."""
        return Ending(params, self._end_ids, self._think_end_ids, self._decode)

    def _sample(
        self, prompts: Sequence[Prompt], params: SamplingParams, ending: Ending, record: Record
    ) -> list[list[Sample]]:
        answers = [
            PendingAnswer.of(prompt, i, k)
            for i, prompt in enumerate(prompts)
            for k in range(prompt.num_answers)
        ]
        # Asked for once: transformers looks through the parameters for it.
        waiting, rows, device = _queue(answers, prompts), Rows.none(), self._model.device
        while waiting or len(rows):
            if waiting and self._has_room(len(rows)):
                fresh = self._admissible(waiting, len(rows), prompts, answers)
                logits = self._admit(fresh, prompts, answers)
                rows = rows.extended(fresh, answers)
                news = slice(len(rows) - len(fresh), len(rows))
            else:
                logits = self._decoder.step(torch.from_numpy(rows.last).to(device))
                news = slice(0, len(rows))
            self._draw(rows, news, logits, params, ending, record)
            rows = self._retire(rows)
        samples = record.samples(self._version)
        ends = np.cumsum([0, *(prompt.num_answers for prompt in prompts)]).tolist()
        return [samples[start:end] for start, end in pairwise(ends)]

    def _has_room(self, active: int) -> bool:
        """Refill in batches of an eighth of the rows: a prefill for every row that ends would cost more."""
        free = self._max_rows - active
        return active == 0 or (self._decoder.uneven and free >= max(1, self._max_rows // 8))

    def _admissible(
        self, waiting: deque[int], active: int, prompts: Sequence[Prompt], answers: Sequence[PendingAnswer]
    ) -> list[int]:
        """Take from the queue what may start now."""
        fresh = [waiting.popleft()]
        length = len(prompts[answers[fresh[0]].prompt].token_ids)
        while waiting and active + len(fresh) < self._max_rows:
            if not self._decoder.uneven and len(prompts[answers[waiting[0]].prompt].token_ids) != length:
                break
            fresh.append(waiting.popleft())
        return fresh

    def _admit(
        self, fresh: Sequence[int], prompts: Sequence[Prompt], answers: Sequence[PendingAnswer]
    ) -> Tensor:
        groups = [(i, len(list(own))) for i, own in groupby(answers[number].prompt for number in fresh)]
        return self._decoder.admit([prompts[i].token_ids for i, _ in groups], [n for _, n in groups])

    def _draw(  # noqa: PLR0917 - one call's own state
        self, rows: Rows, news: slice, logits: Tensor, params: SamplingParams, ending: Ending, record: Record
    ) -> None:
        """Draw the next token of the rows in `news`, write it down, and note which rows are finished."""
        numbers, positions = rows.answers[news], rows.positions[news]
        uniform = torch.from_numpy(uniforms(rows.keys[news], positions.astype(np.uint64)))
        # By position, not by step: an answer draws the same numbers whenever its row was admitted.
        greedy, forced = rows.greedy[news], ending.forced(numbers, positions, rows.thinking[news])
        tokens, logprobs = draw(
            logits,
            uniform.to(logits.device),
            params,
            greedy=torch.from_numpy(greedy).to(logits.device) if greedy.any() else None,
        )
        drawn = tokens.cpu().numpy()
        if forced is not None:
            drawn = np.where(forced < 0, drawn, forced)
        # A finished row still computes until rows are moved; what it draws is not written down.
        alive = ~rows.finished[news]
        stopped = ending.stopped(numbers, positions, drawn)
        record.write(numbers, drawn, logprobs.cpu().numpy(), alive=alive, stopped=stopped, forced=forced)
        rows.last[news] = drawn
        rows.positions[news] += 1
        rows.finished[news] |= stopped | (rows.positions[news] >= params.max_new_tokens)

    def _retire(self, rows: Rows) -> Rows:
        """Let finished rows go, the last rows taking their places, once there are enough of them."""
        alive = np.flatnonzero(~rows.finished)
        finished = len(rows) - len(alive)
        # Moving rows copies their caches: worth it only once enough of them idle.
        if not finished or (len(alive) and finished * SPARE_SHARE < len(rows)):
            return rows
        order = _fill_holes(alive.tolist())
        self._decoder.retain(order)
        return rows.taken(order)


def _queue(answers: Sequence[PendingAnswer], prompts: Sequence[Prompt]) -> deque[int]:
    """All answers, longest prompts first: room is made once, and neighbours pad each other little."""
    return deque(
        sorted(
            range(len(answers)), key=lambda number: (-len(prompts[answers[number].prompt].token_ids), number)
        )
    )


def _fill_holes(alive: list[int]) -> list[int]:
    """The rows alive, ascending, as an order in which those below len(alive) stay where they are."""
    staying = {index for index in alive if index < len(alive)}
    movers = iter(index for index in alive if index >= len(alive))
    return [index if index in staying else next(movers) for index in range(len(alive))]
