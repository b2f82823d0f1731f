"""Speculative decoding: a draft head proposes tokens, one forward of the model judges them all. Lossless.

A drafted token x ~ q is kept with probability min(1, p(x) / q(x)); the first that is not is replaced by one
from max(0, p - q), normalised; after a round in which all were kept comes one more from p. Every token then
has the model's own distribution p (arXiv 2211.17192 §2.3 and appendix A.1; arXiv 2302.01318), and greedy
sampling gives the very tokens of plain greedy sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kascade.models.activations import evaluated
from kascade.models.checksum import weights_checksum
from kascade.rollout.drafting import Drafter, MTPDrafter
from kascade.rollout.ending import Ending
from kascade.rollout.rollback import RollbackCache
from kascade.rollout.sampling import restrict, stream_key, uniforms
from kascade.rollout.types import FinishReason, Prompt, Sample, SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Uniform = Callable[[], float]
ONE_ROW = np.zeros(1, dtype=np.int64)  # number of the only answer that an `Ending` watches here


@dataclass(slots=True)
class DraftStats:
    """Proposed and kept tokens by look-ahead, tokens sampled, and forwards of the model they took."""

    proposed: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    tokens: int = 0
    forwards: int = 0

    def add(self, drafted: int, accepted: int, tokens: int) -> None:
        while len(self.proposed) < drafted:
            self.proposed.append(0)
            self.kept.append(0)
        for ahead in range(drafted):
            self.proposed[ahead] += 1
            self.kept[ahead] += ahead < accepted
        self.tokens += tokens
        self.forwards += 1

    def metrics(self) -> dict[str, float]:
        """draft_acceptance: share of proposed tokens kept, overall and by look-ahead; tokens_per_forward."""
        if not self.forwards:
            return {}
        pairs = zip(self.kept, self.proposed, strict=True)
        rates = {f"draft_acceptance_{i}": kept / count for i, (kept, count) in enumerate(pairs, start=1)}
        overall = {"draft_acceptance": sum(self.kept) / sum(self.proposed)}
        return {**overall, **rates, "tokens_per_forward": self.tokens / self.forwards}


class SpeculativeEngine:
    """Samples row by row, which suits few long answers; the native engine suits many short ones."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        end_ids: Sequence[int],
        draft_tokens: int,
        drafter: Drafter | None = None,
        decode: Callable[[Sequence[int]], str] | None = None,
    ) -> None:
        """draft_tokens: proposed a round. drafter None: the model's multi-token-prediction head. decode: text
        of tokens, for stop texts.

        Raises ValueError when draft_tokens is not positive or the model cannot draft.
        """
        if draft_tokens < 1:
            raise ValueError(f"draft_tokens must be positive, not {draft_tokens}")
        self._model: Any = model
        self._end_ids, self._decode = tuple(end_ids), decode
        self._draft_tokens = draft_tokens
        self._drafter: Drafter = drafter or MTPDrafter(model)
        self._version = 0
        self.weights_checksum = weights_checksum(model)
        self.stats = DraftStats()

    def load_weights(self, version: int) -> None:
        """What is sampled from now on carries `version`; statistics begin anew."""
        self._version, self.stats = version, DraftStats()
        self.weights_checksum = weights_checksum(self._model)

    @torch.inference_mode()
    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        """For each prompt, its answers in order, a greedy one first.

        Raises ValueError for an empty prompt, and for a thinking budget: what is put in place of drawn tokens
        cannot be drafted.
        """
        if any(not prompt.token_ids for prompt in prompts):
            raise ValueError("a prompt has no tokens")
        if params.thinking_budget is not None:
            raise ValueError("drafted answers take no thinking budget")
        with evaluated(self._model):
            return [self._answers(prompt, params) for prompt in prompts]

    def _answers(self, prompt: Prompt, params: SamplingParams) -> list[Sample]:
        ids = torch.tensor([list(prompt.token_ids)], device=self._model.device)
        output = self._model.base_model(input_ids=ids, use_cache=True)
        # The prompt is computed once; each answer works on a copy of its cache.
        cache = RollbackCache(self._model, output.past_key_values)
        hidden: Tensor = output.last_hidden_state
        self._drafter.begin(ids, hidden)
        samples = []
        for number in range(prompt.num_answers):
            greedy = prompt.greedy and number == 0
            how = replace(params, temperature=0) if greedy else params
            uniform = _stream(prompt.seed, prompt.first + number - prompt.greedy)
            row = _Row(self._model, how, cache.copy(), self._drafter.copy(), uniform)
            samples.append(self._finish(row, hidden[:, -1:], params))
        return samples

    def _finish(self, row: _Row, hidden: Tensor, params: SamplingParams) -> Sample:
        ending = Ending(params, self._end_ids, (), self._decode)
        tokens, logprobs = row.first(hidden)
        fresh, states, checked = list(tokens), hidden, 0
        while True:
            for position in range(checked, min(len(tokens), params.max_new_tokens)):
                stopped = bool(ending.stopped(ONE_ROW, np.array([position]), np.array([tokens[position]]))[0])
                if stopped or position + 1 == params.max_new_tokens:
                    kept = position + 1
                    reason: FinishReason = "stop" if stopped else "length"
                    return Sample(tuple(tokens[:kept]), tuple(logprobs[:kept]), reason, self._version)
            checked = len(tokens)
            fresh, fresh_logprobs, states = row.round(fresh, states, self._draft_tokens, tokens[-1])
            self.stats.add(self._draft_tokens, len(fresh) - 1, len(fresh))
            tokens, logprobs = tokens + fresh, logprobs + fresh_logprobs


class _Row:
    """One sample in the making."""

    def __init__(
        self, model: Any, params: SamplingParams, cache: RollbackCache, drafter: Drafter, uniform: Uniform
    ) -> None:
        self._model, self._params = model, params
        self._cache, self._drafter, self._uniform = cache, drafter, uniform

    def first(self, hidden: Tensor) -> tuple[list[int], list[float]]:
        """The first token, from the prompt's last state [1, 1, H]."""
        probabilities, logprobs = self._distribution(self._model.get_output_embeddings()(hidden[0]))
        token = pick(probabilities[0], self._uniform())
        return [token], [float(logprobs[0, token])]

    def round(
        self, fresh: Sequence[int], states: Tensor, count: int, last: int
    ) -> tuple[list[int], list[float], Tensor]:
        """Draft, judge, keep: the tokens won, their log-probabilities, and the states that led to them."""
        proposals: list[Tensor] = []

        def choose(logits: Tensor) -> int:
            probabilities, _ = self._distribution(logits[None])
            proposals.append(probabilities[0])
            return pick(probabilities[0], self._uniform())

        drafted = self._drafter.draft(fresh, states, count, choose)
        # The last token kept has not been through the model yet: it goes first, so k drafts give k + 1 rows.
        ids = torch.tensor([[last, *drafted]], device=states.device)
        with self._cache.trial():
            output = self._model.base_model(input_ids=ids, past_key_values=self._cache.cache, use_cache=True)
        hidden = output.last_hidden_state
        target, logprobs = self._distribution(self._model.get_output_embeddings()(hidden[0]))
        accepted, token = judge(target, torch.stack(proposals), drafted, self._uniform)
        # `last` and what was accepted; the token that follows them is the next round's `last`.
        self._cache.keep(len(drafted) + 1, accepted + 1)
        won = [*drafted[:accepted], token]
        return won, [float(logprobs[i, t]) for i, t in enumerate(won)], hidden[:, : accepted + 1]

    def _distribution(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """What is drawn from (float64) and the log-probabilities to report, [n, V] each, as in `draw`."""
        logits = logits.float()
        if self._params.temperature == 0:
            best = logits.argmax(-1)[:, None]
            certain = torch.zeros_like(logits, dtype=torch.float64).scatter_(1, best, 1.0)
            return certain, logits.log_softmax(-1)
        # float64 for drawing: p / q of rare tokens decides acceptance, and float32 would bias it.
        restricted = restrict(logits / self._params.temperature, self._params.top_k, self._params.top_p)
        return restricted.double().softmax(-1), restricted.log_softmax(-1)


def judge(target: Tensor, proposal: Tensor, drafted: Sequence[int], uniform: Uniform) -> tuple[int, int]:
    """How many drafted tokens to keep, and the token that follows them.

    target [k + 1, V], proposal [k, V]: probabilities of the model and of the draft, float64. One uniform a
    drafted token, one for the token that follows.
    """
    for index, token in enumerate(drafted):
        # The uniforms are drawn in a fixed order, so that an answer does not depend on what is beside it.
        if uniform() >= acceptance(target[index], proposal[index], token):
            return index, pick(residual(target[index], proposal[index]), uniform())
    return len(drafted), pick(target[-1], uniform())


def acceptance(target: Tensor, proposal: Tensor, token: int) -> float:
    """Probability of keeping a token drawn from the proposal."""
    return min(1.0, float(target[token] / proposal[token]))


def residual(target: Tensor, proposal: Tensor) -> Tensor:
    """What a token that was not kept is replaced from, not normalised: [V]."""
    left = (target - proposal).clamp(min=0)
    return left if bool(left.any()) else target  # equal but for rounding: then it hardly ever comes to this


def pick(weights: Tensor, uniform: float) -> int:
    """The token of [V] whose stretch of the cumulative weights holds the uniform."""
    cdf = weights.cumsum(-1)
    point = torch.tensor([uniform], dtype=cdf.dtype, device=cdf.device) * cdf[-1]
    return min(int(torch.searchsorted(cdf, point, right=True)), len(weights) - 1)


def _stream(seed: int, sample: int) -> Uniform:
    """Uniforms of one sample, one after another: the same whatever is sampled beside it."""
    key, position = np.array([stream_key(seed, sample)], dtype=np.uint64), 0

    def following() -> float:
        nonlocal position
        position += 1
        return float(uniforms(key, np.array([position - 1], dtype=np.uint64))[0])

    return following
