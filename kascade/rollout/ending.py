"""What ends an answer, and what ends its thinking: end tokens, stop sequences, the thinking budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kascade.rollout.types import SamplingParams

if TYPE_CHECKING:
    from kascade.rollout.rows import Bools, Ints


class Ending:
    """Watches the answers of one call. Keeps the tail of each only where something needs it."""

    def __init__(
        self,
        params: SamplingParams,
        end_ids: Sequence[int],
        think_end_ids: Sequence[int],
        decode: Callable[[Sequence[int]], str] | None,
    ) -> None:
        """Raises ValueError for a thinking budget without think_end_ids, or a stop text without decode."""
        if params.thinking_budget is not None and not think_end_ids:
            raise ValueError("a thinking budget needs the tokens that end a think block")
        if params.stop_texts and decode is None:
            raise ValueError("stop texts need a way to decode tokens")
        self._params, self._decode = params, decode
        self._end_ids = np.array(end_ids, dtype=np.int64)
        self._think_end = tuple(think_end_ids)
        budget = params.thinking_budget is not None
        longest = [len(ids) for ids in params.stop_ids] + [len(self._think_end)] * budget
        # a character takes at most four tokens (the bytes of UTF-8)
        self._tail_length = max(longest + [4 * len(text) for text in params.stop_texts], default=0)
        self._tails: dict[int, list[int]] = {}
        self._thought: set[int] = set()  # answers whose think block is closed

    def forced(self, numbers: Ints, positions: Ints, thinking: Bools) -> Ints | None:
        """The token to put instead of drawing, -1 where one is drawn; None where no budget is passed.

        numbers, positions, thinking: of each row its answer, how many tokens it has, and whether its prompt
        left a think block open.
        """
        budget = self._params.thinking_budget
        if budget is None:
            return None
        over = thinking & (positions >= budget) & (positions < budget + len(self._think_end))
        forced = np.full(len(numbers), -1, dtype=np.int64)
        for row in np.flatnonzero(over):
            if int(numbers[row]) not in self._thought:
                forced[row] = self._think_end[int(positions[row]) - budget]
        return forced if (forced >= 0).any() else None

    def stopped(self, numbers: Ints, positions: Ints, tokens: Ints) -> Bools:
        """Whether the token just given ends each row's answer."""
        stopped: Bools = (tokens[:, None] == self._end_ids).any(-1)
        if self._tail_length:
            for row, (number, token) in enumerate(zip(numbers.tolist(), tokens.tolist(), strict=True)):
                stopped[row] |= self._watch(number, token, int(positions[row]))
        return stopped

    def _watch(self, number: int, token: int, position: int) -> bool:
        """Take note of an answer's token; whether a stop sequence is complete."""
        tail = self._tails.setdefault(number, [])
        tail.append(token)
        del tail[: -self._tail_length]
        budget = self._params.thinking_budget
        if budget is not None and position < budget and _ends_with(tail, self._think_end):
            self._thought.add(number)
        if any(_ends_with(tail, ids) for ids in self._params.stop_ids):
            return True
        if not self._params.stop_texts or self._decode is None:
            return False
        text = self._decode(tail)
        return any(stop in text for stop in self._params.stop_texts)


def _ends_with(tail: Sequence[int], ids: Sequence[int]) -> bool:
    return len(ids) <= len(tail) and tuple(tail[len(tail) - len(ids) :]) == tuple(ids)
