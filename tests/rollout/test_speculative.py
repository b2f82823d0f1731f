"""Speculative decoding is lossless: greedy tokens and the distribution are the model's own."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from transformers import AutoModelForCausalLM, NemotronHConfig, PreTrainedModel, Qwen3Config

from kascade.models.logprobs import TokenBatch, token_logprobs
from kascade.models.mtp import add_mtp_head, mtp_head
from kascade.rollout.drafting import Drafter
from kascade.rollout.native import NativeEngine
from kascade.rollout.speculative import SpeculativeEngine, acceptance, judge, pick, residual
from kascade.rollout.types import Prompt, Sample, SamplingParams


def hybrid(vocabulary: int = 32, seed: int = 0, pattern: str = "MEM*-") -> PreTrainedModel:
    """A tiny `nemotron_h` with a multi-token-prediction head."""
    torch.manual_seed(seed)
    config = NemotronHConfig(
        vocab_size=vocabulary, hidden_size=32, hybrid_override_pattern=pattern, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, mamba_num_heads=4, mamba_head_dim=16, ssm_state_size=16,
        n_groups=2, chunk_size=16, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        moe_shared_expert_intermediate_size=32, intermediate_size=64, pad_token_id=0, bos_token_id=None,
        eos_token_id=1, initializer_range=0.2, num_nextn_predict_layers=1,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    add_mtp_head(model)
    return model


def dense(vocabulary: int = 32) -> PreTrainedModel:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, pad_token_id=0, bos_token_id=None,
        eos_token_id=1, initializer_range=0.2,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


class Guesses:
    """A drafter that always proposes the same distribution, whatever came before."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def begin(self, token_ids: Tensor, hidden: Tensor) -> None: ...

    def copy(self) -> Guesses:
        return self

    def draft(
        self, tokens: Sequence[int], hidden: Tensor, count: int, choose: Callable[[Tensor], int]
    ) -> list[int]:
        return [choose(torch.linspace(0, 1, self.vocabulary)) for _ in range(count)]


def knows_the_answer(model: PreTrainedModel, answer: Sequence[int]) -> Drafter:
    """A drafter that proposes what greedy decoding will give, so that everything is kept."""

    class Oracle(Guesses):
        done = 0

        def copy(self) -> Oracle:
            return Oracle(self.vocabulary)

        def draft(
            self, tokens: Sequence[int], hidden: Tensor, count: int, choose: Callable[[Tensor], int]
        ) -> list[int]:
            self.done += len(tokens)
            following = [*answer[self.done : self.done + count], *[0] * count][:count]
            return [choose(torch.eye(self.vocabulary)[token]) for token in following]

    return Oracle(model.config.vocab_size)


PROMPTS = [Prompt((5, 6, 7, 8, 9), 1, 0), Prompt((4,), 1, 1), Prompt(tuple(range(2, 26)), 1, 2)]


@pytest.mark.parametrize("draft_tokens", [1, 3])
def test_greedy_tokens_are_those_of_generate(draft_tokens: int) -> None:
    model = hybrid()
    engine = SpeculativeEngine(model, end_ids=[], draft_tokens=draft_tokens)
    ours = engine.sample(PROMPTS, SamplingParams(24, temperature=0))
    for prompt, (sample,) in zip(PROMPTS, ours, strict=True):
        ids = torch.tensor([prompt.token_ids])
        theirs = model.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=-1, pad_token_id=0)
        assert list(sample.token_ids) == theirs[0, ids.shape[1] :].tolist()
    assert ours == [  # and those of the native engine, log-probabilities to the last bits
        [Sample(s.token_ids, pytest.approx(s.logprobs, abs=1e-5), s.finish_reason, s.weights_version)]
        for (s,) in NativeEngine(model, end_ids=[]).sample(PROMPTS, SamplingParams(24, temperature=0))
    ]


@pytest.mark.parametrize("make", [hybrid, dense])
@pytest.mark.parametrize("params", [SamplingParams(20), SamplingParams(20, 0.7, top_p=0.9, top_k=12)])
def test_logprobs_are_the_trainers(make: Callable[[], PreTrainedModel], params: SamplingParams) -> None:
    model = make()
    drafter = None if mtp_head(model) else Guesses(32)
    engine = SpeculativeEngine(model, end_ids=[], draft_tokens=3, drafter=drafter)
    for prompt, (sample,) in zip(PROMPTS, engine.sample(PROMPTS, params), strict=True):
        ids = [*prompt.token_ids, *sample.token_ids]
        scored = [i >= len(prompt.token_ids) for i in range(len(ids))]
        own = token_logprobs(
            model, TokenBatch.collate([ids], [scored], 0), temperature=params.temperature
        ).logprobs.detach()
        difference = torch.tensor(sample.logprobs) - own
        if params.top_k is None:
            torch.testing.assert_close(difference, torch.zeros(20), atol=2e-5, rtol=0)
        else:  # what is restricted is renormalised, so never less likely
            assert (difference > -1e-5).all()


def exact_distribution(
    model: PreTrainedModel, prompt: Sequence[int], length: int
) -> dict[tuple[int, ...], float]:
    """Probability of every answer of `length` tokens, from the model's own forward."""
    vocabulary = model.config.vocab_size
    answers = list(itertools.product(range(vocabulary), repeat=length))
    sequences = [[*prompt, *answer] for answer in answers]
    scored = [[False] * len(prompt) + [True] * length for _ in answers]
    with torch.no_grad():
        logprobs = token_logprobs(model, TokenBatch.collate(sequences, scored, 0)).logprobs
    return dict(zip(answers, logprobs.double().view(-1, length).sum(1).exp().tolist(), strict=True))


@pytest.mark.parametrize("drafter", ["head", "guesses"])
def test_answers_have_the_models_distribution(drafter: str) -> None:
    """Chi-square over all answers of three tokens; every one of them is drafted and judged but the first."""
    model = hybrid(vocabulary=3, seed=3, pattern="M*")
    own = None if drafter == "head" else Guesses(3)
    engine = SpeculativeEngine(model, end_ids=[], draft_tokens=2, drafter=own)
    expected = exact_distribution(model, (1, 2), 3)
    (samples,) = engine.sample([Prompt((1, 2), 300, seed=11)], SamplingParams(3))
    seen = Counter(sample.token_ids for sample in samples)
    frequent = [answer for answer, p in expected.items() if p * len(samples) >= 5]
    observed = [seen[answer] for answer in frequent]
    wanted = [expected[answer] * len(samples) for answer in frequent]
    rest = len(samples) - sum(wanted)
    if rest > 1:
        observed, wanted = [*observed, len(samples) - sum(observed)], [*wanted, rest]
    scale = sum(observed) / sum(wanted)
    assert chisquare(observed, [w * scale for w in wanted]).pvalue > 1e-3
    assert 0.2 < engine.stats.metrics()["draft_acceptance"] < 1


def probabilities(size: int) -> st.SearchStrategy[Tensor]:
    weights = st.lists(st.integers(0, 20), min_size=size, max_size=size).filter(any)
    return weights.map(lambda w: torch.tensor(w, dtype=torch.float64) / sum(w))


@given(probabilities(5), probabilities(5))
@settings(max_examples=200, deadline=None)
def test_keeping_or_replacing_gives_exactly_the_target(target: Tensor, proposal: Tensor) -> None:
    """sum over drafts: q(x) a(x) [kept] + (1 - sum q a) residual(x) = p(x), for any p and q."""
    kept = torch.tensor(
        [float(q) * acceptance(target, proposal, x) if q > 0 else 0.0 for x, q in enumerate(proposal)],
        dtype=torch.float64,
    )
    left = residual(target, proposal)
    torch.testing.assert_close(kept + (1 - kept.sum()) * left / left.sum(), target, atol=1e-12, rtol=0)


def test_judge_keeps_up_to_the_first_refusal() -> None:
    target = torch.eye(4, dtype=torch.float64)[[1, 2, 3]]
    proposal = torch.full((2, 4), 0.25, dtype=torch.float64)
    assert judge(target, proposal, [1, 2], lambda: 0.5) == (2, 3)
    assert judge(target, proposal, [1, 3], lambda: 0.5) == (1, 2)
    assert judge(target, proposal, [0, 2], lambda: 0.5) == (0, 1)
    assert pick(torch.tensor([0.0, 1.0, 0.0]), 0.999999) == 1


def test_a_perfect_draft_is_kept_whole_and_saves_forwards() -> None:
    model, params = dense(), SamplingParams(16, temperature=0)
    plain = NativeEngine(model, end_ids=[]).sample(PROMPTS[:1], params)
    drafter = knows_the_answer(model, plain[0][0].token_ids)
    engine = SpeculativeEngine(model, end_ids=[], draft_tokens=3, drafter=drafter)
    assert engine.sample(PROMPTS[:1], params)[0][0].token_ids == plain[0][0].token_ids
    metrics = engine.stats.metrics()
    assert metrics["draft_acceptance_1"] == 1.0
    assert engine.stats.forwards == 4  # 15 tokens after the first, four a forward


def test_seeds_stops_and_limits() -> None:
    model = hybrid()
    ends = tuple(range(2, 8))
    engine = SpeculativeEngine(model, end_ids=ends, draft_tokens=2)
    engine.load_weights(7)
    prompts = [Prompt((5, 6, 7), 4, seed=1), Prompt((9, 9), 2, seed=2)]
    both = engine.sample(prompts, SamplingParams(12))
    assert engine.sample(prompts[1:], SamplingParams(12)) == both[1:]  # whatever is sampled beside it
    samples = [sample for group in both for sample in group]
    assert len({sample.token_ids for sample in samples}) > 3
    for sample in samples:
        assert not set(ends) & set(sample.token_ids[:-1])
        assert (sample.finish_reason == "stop") == (sample.token_ids[-1] in ends)
        assert sample.finish_reason == "stop" or len(sample.token_ids) == 12
        assert sample.weights_version == 7 and len(sample.logprobs) == len(sample.token_ids)
    assert {s.finish_reason for s in samples} == {"stop", "length"}


def test_greedy_answers_come_first_and_texts_stop() -> None:
    model, prompt = hybrid(), Prompt((5, 6, 7), 2, seed=1, greedy=True)
    engine = SpeculativeEngine(model, end_ids=[], draft_tokens=2, decode=lambda ids: "".join(map(chr, ids)))
    native = NativeEngine(model, end_ids=[]).sample([prompt], SamplingParams(12))
    (answers,) = engine.sample([prompt], SamplingParams(12))
    assert answers[0].token_ids == native[0][0].token_ids
    assert answers[1:] == engine.sample([replace(prompt, greedy=False)], SamplingParams(12))[0]
    middle = answers[1].token_ids[5]
    (stopped,) = engine.sample([prompt], SamplingParams(12, stop_texts=(chr(middle),)))
    first = answers[1].token_ids.index(middle)
    assert stopped[1].token_ids == answers[1].token_ids[: first + 1]
    assert stopped[1].finish_reason == "stop"
    with pytest.raises(ValueError, match="thinking budget"):
        engine.sample([prompt], SamplingParams(12, thinking_budget=3))


def test_what_cannot_draft_is_refused() -> None:
    with pytest.raises(ValueError, match="no multi-token-prediction head"):
        SpeculativeEngine(dense(), end_ids=[], draft_tokens=2)
    with pytest.raises(ValueError, match="positive"):
        SpeculativeEngine(hybrid(), end_ids=[], draft_tokens=0)
    engine = SpeculativeEngine(hybrid(), end_ids=[], draft_tokens=2)
    with pytest.raises(ValueError, match="no tokens"):
        engine.sample([Prompt((), 1, 0)], SamplingParams(2))
