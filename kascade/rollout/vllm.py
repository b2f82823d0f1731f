"""Rollouts by vLLM behind the engine's face: token ids in, token ids and processed log-probabilities out.

The vLLM itself is in this process (`vllm_local`) or behind a server (`vllm_served`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kascade.errors import Fault, TrainingStopped, UserError
from kascade.rollout.canary import Rows, Scored, Watch
from kascade.rollout.handover import WeightSource
from kascade.rollout.sampling import stream_key
from kascade.rollout.types import FinishReason, Prompt, Sample, SamplingParams

MAX_SEED = 2**63  # vLLM hands seeds to torch generators


@dataclass(frozen=True, slots=True)
class Request:
    """Tokens to continue, and how; names and meanings are vLLM's own."""

    token_ids: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop_token_ids: list[int]
    stop: list[str]


@dataclass(frozen=True, slots=True)
class Continuation:
    """What vLLM made of a request. stopped: it ended at a token or text that ends answers."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    stopped: bool


class AnyVLLM(Protocol):
    """A vLLM, wherever it is."""

    def take(self, version: int, unchanged: Callable[[], None]) -> None:
        """Take over the source's weights; drop what older ones computed.

        unchanged: raises TrainingStopped when the source's weights changed meanwhile.
        """
        ...

    def extend(self, requests: Sequence[Request]) -> list[Continuation]: ...

    def score(self, rows: Rows) -> list[list[float]]:
        """Per row the log-probabilities of every token after the first."""
        ...

    def dtype(self) -> str:
        """In what it computes."""
        ...


@dataclass(slots=True)
class _Growing:
    """An answer in the making: which one, what it has so far, how it ended."""

    prompt: Prompt
    key: int
    greedy: bool
    token_ids: list[int]
    logprobs: list[float]
    forced: slice | None = None  # tokens that were put there
    ended: FinishReason = "length"


class VLLMEngine:
    """Samples with vLLM. Every answer is a request with a seed of its own, so samples do not depend on how
    they are batched; vLLM's prefix cache computes their common prompt once.
    """

    def __init__(
        self,
        vllm: AnyVLLM,
        source: WeightSource,
        *,
        watch: Watch | None,
        end_ids: Sequence[int],
        think_end_ids: Sequence[int] = (),
    ) -> None:
        """source: who holds the weights that `vllm` takes over. watch: the canary; None: there is none."""
        self._vllm, self._source, self._watch = vllm, source, watch
        self.weights_checksum = 0
        self._end_ids, self._think_end_ids = list(end_ids), list(think_end_ids)
        self._version: int | None = None
        self._seen: Scored | None = None

    def load_weights(self, version: int) -> None:
        """Hand the current weights to vLLM, then let the canary compare what both compute with them.

        `weights_checksum` is then that of what was handed over: vLLM keeps weights in a form of its own, with
        other bits. Raises TrainingStopped when the weights changed on their way, or vLLM scores otherwise, or
        as it did before them.
        """
        handed_over = self._source.checksum()

        def unchanged() -> None:
            if self._source.checksum() != handed_over:
                raise TrainingStopped(f"weights version {version} changed while they were handed to vLLM")

        self._version = None  # until the new ones have proved right
        self._vllm.take(version, unchanged)
        if self._watch is not None:
            rows, dtype = self._watch.rows, self._vllm.dtype()
            seen = Scored(self._source.logprobs_of(rows), self._vllm.score(rows), handed_over)
            self._watch.check(seen.mine, seen.theirs, version, dtype)
            if self._seen is not None and dtype == self._source.computes_in():
                seen.refuse_standstill(self._seen, version)
            self._seen = seen
        self._version, self.weights_checksum = version, handed_over

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """For each prompt, its answers in order, a greedy one first.

        Raises ValueError for an empty prompt, weights never loaded, or a budget without think_end_ids;
        UserError for stop sequences of several tokens, which vLLM does not have.
        """
        if self._version is None:
            raise ValueError("load_weights comes first")
        if any(not prompt.token_ids for prompt in prompts):
            raise ValueError("a prompt has no tokens")
        if params.thinking_budget is not None and not self._think_end_ids:
            raise ValueError("a thinking budget needs the tokens that end a think block")
        if any(len(ids) != 1 for ids in params.stop_ids):
            remedy = "stop at a text (stop_texts) or use the native engine"
            raise UserError(Fault("stop_ids", "vLLM stops at single tokens only", remedy=remedy))
        groups = [list(_answers(prompt)) for prompt in prompts]
        everyone = [answer for group in groups for answer in group]
        budget = params.thinking_budget
        thinking = [answer for answer in everyone if budget is not None and answer.prompt.thinking]
        others = [answer for answer in everyone if budget is None or not answer.prompt.thinking]
        self._extend(others, params, params.max_new_tokens)
        if budget is not None and thinking:
            self._extend(thinking, params, min(budget, params.max_new_tokens))
            open_ended = [answer for answer in thinking if answer.ended == "length"]
            for answer in open_ended:
                self._close_thinking(answer, params.max_new_tokens)
            self._extend(open_ended, params, params.max_new_tokens)
        return [[self._sample_of(answer) for answer in group] for group in groups]

    def _sample_of(self, answer: _Growing) -> Sample:
        drawn = None
        if answer.forced is not None:
            put = range(len(answer.token_ids))[answer.forced]
            drawn = tuple(place not in put for place in range(len(answer.token_ids)))
        version = self._version or 0
        return Sample(tuple(answer.token_ids), tuple(answer.logprobs), answer.ended, version, drawn)

    def _close_thinking(self, answer: _Growing, max_new_tokens: int) -> None:
        """At the budget: append the end of the think block, unless the model has closed it itself."""
        if _holds(answer.token_ids, self._think_end_ids):
            return
        start = len(answer.token_ids)
        put = self._think_end_ids[: max_new_tokens - start]
        answer.forced = slice(start, start + len(put))
        answer.token_ids += put

    def _extend(self, answers: Sequence[_Growing], params: SamplingParams, length: int) -> None:
        """Let answers grow to `length` tokens, or until they end."""
        growing = [answer for answer in answers if len(answer.token_ids) < length]
        if not growing:
            return
        requests = [self._request(answer, params, length - len(answer.token_ids)) for answer in growing]
        for answer, found in zip(growing, self._vllm.extend(requests), strict=True):
            answer.token_ids += found.token_ids
            answer.logprobs += found.logprobs
            answer.ended = "stop" if found.stopped else "length"

    def _request(self, answer: _Growing, params: SamplingParams, max_tokens: int) -> Request:
        greedy = answer.greedy or params.temperature == 0
        return Request(
            [*answer.prompt.token_ids, *answer.token_ids],
            max_tokens=max_tokens,
            temperature=0.0 if greedy else params.temperature,
            top_p=1.0 if greedy else params.top_p,
            top_k=0 if greedy or params.top_k is None else params.top_k,
            seed=stream_key(answer.key, len(answer.token_ids)) % MAX_SEED,
            stop_token_ids=[*self._end_ids, *(ids[0] for ids in params.stop_ids)],
            stop=list(params.stop_texts),
        )


def _answers(prompt: Prompt) -> Iterable[_Growing]:
    if prompt.greedy:
        yield _Growing(prompt, prompt.seed, True, [], [])
    for sample in range(prompt.first, prompt.first + prompt.num_samples):
        yield _Growing(prompt, stream_key(prompt.seed, sample), False, [], [])


def _holds(ids: Sequence[int], part: Sequence[int]) -> bool:
    return any(list(ids[i : i + len(part)]) == list(part) for i in range(len(ids) - len(part) + 1))
