"""One thread that owns the model: requests wait in line, and those that sample alike share a batch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kascade.models.logprobs import RankedScores, ranked_scores
from kascade.rollout.types import Prompt, Sample, SamplingParams

if TYPE_CHECKING:
    from kascade.rollout.native import NativeEngine
    from kascade.rollout.policy import Policy

OnToken = Callable[[int, int], None]  # number of the answer, and the token it was just given


class Cancelled(Exception):
    """The client is gone: nobody waits for these answers."""


@dataclass(slots=True)
class Generation:
    """Answers to one prompt, asked for. on_token: called in the model's thread with every token drawn."""

    prompt: Prompt
    params: SamplingParams
    on_token: OnToken | None = None
    cancelled: bool = False
    done: Future[list[Sample]] = field(default_factory=Future)

    def begins(self) -> bool:
        """Whether somebody waits for it. From then on nobody can take the future back: the thread ends it."""
        if self.cancelled:
            self.done.cancel()
        return self.done.set_running_or_notify_cancel()


@dataclass(slots=True)
class Scoring:
    """Scores of given tokens, asked for: of each token [T] after the first, with `top` alternatives."""

    token_ids: Sequence[int]
    top: int
    done: Future[RankedScores] = field(default_factory=Future)


class ModelThread:
    """Runs what is asked of a policy with the native engine, in order of arrival."""

    def __init__(self, policy: Policy, engine: NativeEngine, *, most_prompts: int = 64) -> None:
        """most_prompts: prompts that may share a batch."""
        self._policy, self._engine, self._most = policy, engine, most_prompts
        self._line: queue.Queue[Generation | Scoring | None] = queue.Queue()
        self._passed: list[Generation | Scoring] = []  # taken from the line, but not in the last batch
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def generate(self, asked: Generation) -> Future[list[Sample]]:
        """Its samples, in order."""
        self._line.put(asked)
        return asked.done

    def score(self, token_ids: Sequence[int], top: int) -> Future[RankedScores]:
        """The model's own log-probabilities of given tokens."""
        asked = Scoring(token_ids, top)
        self._line.put(asked)
        return asked.done

    def close(self) -> None:
        """Finish what is in line, then end."""
        self._line.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            first = self._passed.pop(0) if self._passed else self._line.get()
            if first is None:
                return
            if isinstance(first, Scoring):
                _answer(first.done, lambda asked=first: self._score(asked))  # type: ignore[misc]
            else:
                self._generate_together(first)

    def _generate_together(self, first: Generation) -> None:
        batch = [one for one in (first, *self._companions(first)) if one.begins()]
        if not batch:
            return
        try:
            samples = self._engine.sample_watched(
                [one.prompt for one in batch], first.params, _Watch(batch).tell
            )
        except Exception as error:  # each client gets the error; the thread lives on
            for one in batch:
                one.done.set_exception(error)
            return
        for one, own in zip(batch, samples, strict=True):
            one.done.set_result(own)

    def _companions(self, first: Generation) -> list[Generation]:
        """Whoever waits already and samples in the same way."""
        waiting, self._passed = self._passed, []
        while not self._line.empty():
            asked = self._line.get()
            if asked is None:
                self._line.put(None)
                break
            waiting.append(asked)
        found: list[Generation] = []
        for asked in waiting:
            alike = isinstance(asked, Generation) and asked.params == first.params
            if alike and len(found) + 1 < self._most:
                found.append(asked)  # type: ignore[arg-type]
            else:
                self._passed.append(asked)
        return found

    def _score(self, asked: Scoring) -> RankedScores:
        return ranked_scores(self._policy.model, asked.token_ids, asked.top, pad_id=self._policy.pad_id)


class _Watch:
    """Hands each token of a batch to the request that it belongs to."""

    def __init__(self, batch: Sequence[Generation]) -> None:
        self._batch = batch
        self._owner = [(one, k) for one in batch for k in range(one.prompt.num_answers)]

    def tell(self, numbers: list[int], tokens: list[int]) -> None:
        if all(one.cancelled for one in self._batch):
            raise Cancelled
        for number, token in zip(numbers, tokens, strict=True):
            one, answer = self._owner[number]
            if one.on_token is not None and not one.cancelled:
                one.on_token(answer, token)


def _answer(done: Future[RankedScores], work: Callable[[], RankedScores]) -> None:
    if not done.set_running_or_notify_cancel():  # the client has left
        return
    try:
        done.set_result(work())
    except Exception as error:  # the client gets the error; the thread lives on
        done.set_exception(error)
