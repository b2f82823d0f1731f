"""Answers in the making: the active rows as arrays, and what was drawn so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from kascade.rollout.sampling import UInts, stream_key
from kascade.rollout.types import Prompt, Sample

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PendingAnswer:
    """One answer to give: which prompt's, its random stream, and whether it is the greedy one."""

    prompt: int
    key: int
    greedy: bool
    thinking: bool

    @classmethod
    def of(cls, prompt: Prompt, index: int, number: int) -> PendingAnswer:
        """Answer `number` to the prompt; the greedy one comes first and takes no sample's stream."""
        sample = prompt.first + number - prompt.greedy
        return cls(index, stream_key(prompt.seed, sample), prompt.greedy and number == 0, prompt.thinking)


@dataclass(slots=True)
class Rows:
    """The active rows, each array [n]: number of the answer, its random stream, tokens drawn so far, the
    last of them, and whether it is done (it stays until rows are moved, and what it draws is ignored).
    """

    answers: Ints
    keys: UInts
    positions: Ints
    last: Ints
    greedy: Bools
    thinking: Bools
    finished: Bools

    @classmethod
    def none(cls) -> Rows:
        ints, bools = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.bool_)
        return cls(ints, np.zeros(0, dtype=np.uint64), ints, ints, bools, bools, bools)

    def __len__(self) -> int:
        return len(self.answers)

    def extended(self, fresh: Sequence[int], answers: Sequence[PendingAnswer]) -> Rows:
        """With rows for the answers of these numbers at the end."""
        zeros = np.zeros(len(fresh), dtype=np.int64)
        more = Rows(
            np.array(fresh, dtype=np.int64),
            np.array([answers[number].key for number in fresh], dtype=np.uint64),
            zeros,
            zeros,
            np.array([answers[number].greedy for number in fresh], dtype=np.bool_),
            np.array([answers[number].thinking for number in fresh], dtype=np.bool_),
            zeros.astype(np.bool_),
        )
        return Rows(*(np.concatenate([getattr(self, f.name), getattr(more, f.name)]) for f in fields(self)))

    def taken(self, order: Sequence[int]) -> Rows:
        """Row i is what row order[i] was."""
        index = np.array(order, dtype=np.int64)
        return Rows(*(getattr(self, f.name)[index] for f in fields(self)))


Watch = Callable[[list[int], list[int]], None]  # numbers of answers, and the token that each was just given


class Record:
    """Everything drawn in one call, step by step; sorted into answers at the end.

    watch: shown each step as it is written.
    """

    def __init__(self, num_answers: int, watch: Watch | None = None) -> None:
        self._watch = watch
        self._steps: list[tuple[Ints, Ints, Floats, Bools]] = []
        self._stopped = np.zeros(num_answers, dtype=np.bool_)

    def write(
        self,
        numbers: Ints,
        tokens: Ints,
        logprobs: Floats,
        *,
        alive: Bools,
        stopped: Bools,
        forced: Ints | None,
    ) -> None:
        """One token of each row that is alive; stopped: it ends the answer; forced: as `Ending.forced`."""
        put = np.zeros(len(tokens), dtype=np.bool_) if forced is None else forced >= 0
        self._steps.append((numbers[alive], tokens[alive], logprobs[alive], put[alive]))
        self._stopped[numbers[alive & stopped]] = True
        if self._watch is not None:
            self._watch(numbers[alive].tolist(), tokens[alive].tolist())

    def samples(self, version: int) -> list[Sample]:
        """The answers in order of their numbers."""
        if not self._steps:
            return []
        numbers, tokens, logprobs, put = (np.concatenate(parts) for parts in zip(*self._steps, strict=True))
        # Stable: steps were written in the order of positions, and stay so within an answer.
        order = np.argsort(numbers, kind="stable")
        tokens, logprobs, put = tokens[order], logprobs[order], put[order]
        ends = np.cumsum(np.bincount(numbers, minlength=len(self._stopped)))
        return [
            Sample(
                tuple(tokens[start:end].tolist()),
                tuple(logprobs[start:end][~put[start:end]].tolist()),
                "stop" if stopped else "length",
                version,
                tuple((~put[start:end]).tolist()) if put[start:end].any() else None,
            )
            for start, end, stopped in zip([0, *ends[:-1]], ends, self._stopped, strict=True)
        ]
