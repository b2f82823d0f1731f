"""What ends an answer: stop sequences, thinking budgets; greedy and drawn answers of one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from kascade.miniature.config import mini_config
from kascade.models.logprobs import TokenBatch, token_logprobs
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import Prompt, Sample, SamplingParams

VOCABULARY = 60
PROMPTS = [Prompt(tuple(range(5, 5 + n)), 4, seed=n) for n in (3, 9, 20)]


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(mini_config("mini-qwen3", VOCABULARY, 0, None, 1)).eval()
    with torch.no_grad():  # a little less uniform than at initialisation
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(1.5)
    return model


def decode(ids: Sequence[int]) -> str:
    return "".join(chr(ord("0") + i) for i in ids)


def tokens(groups: Sequence[Sequence[Sample]]) -> list[list[tuple[int, ...]]]:
    return [[sample.token_ids for sample in group] for group in groups]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_greedy_answer_comes_first_and_changes_no_sample(
    model: PreTrainedModel, temperature: float
) -> None:
    engine, params = NativeEngine(model, end_ids=[2, 3]), SamplingParams(16, temperature, top_p=0.95)
    both = engine.sample([replace(prompt, greedy=True) for prompt in PROMPTS], params)
    drawn = engine.sample(PROMPTS, params)
    greedy = engine.sample([replace(p, num_samples=1) for p in PROMPTS], SamplingParams(16, temperature=0))
    assert tokens([group[1:] for group in both]) == tokens(drawn)
    assert tokens([group[:1] for group in both]) == tokens(greedy)
    for mixed, alone in zip(both, greedy, strict=True):
        assert mixed[0].logprobs == pytest.approx(alone[0].logprobs, abs=1e-5)


def test_truncated_sampling_gives_the_logprobs_of_what_it_drew_from(model: PreTrainedModel) -> None:
    params = SamplingParams(12, temperature=0.8, top_k=5, top_p=0.9)
    (group,) = NativeEngine(model, end_ids=[]).sample(PROMPTS[:1], params)
    for sample in group:
        ids = torch.tensor([[*PROMPTS[0].token_ids, *sample.token_ids]])
        logits = model(ids).logits[0, len(PROMPTS[0].token_ids) - 1 : -1] / 0.8
        for row, token, logprob in zip(logits, sample.token_ids, sample.logprobs, strict=True):
            likeliest = row.softmax(-1).sort(descending=True)
            best = likeliest.values[:5] / likeliest.values[:5].sum()
            kept = int((best.cumsum(0) - best < 0.9).sum())
            place = likeliest.indices[:kept].tolist().index(token)
            assert logprob == pytest.approx((best[:kept] / best[:kept].sum()).log()[place].item(), abs=1e-4)


def test_stop_sequences_end_an_answer_and_stay_in_it(model: PreTrainedModel) -> None:
    whole = NativeEngine(model, end_ids=[]).sample(PROMPTS, SamplingParams(30))
    for by_text in (False, True):
        stop = whole[1][2].token_ids[7:9]
        params = SamplingParams(
            30, stop_ids=() if by_text else (stop,), stop_texts=(decode(stop),) if by_text else ()
        )
        stopped = NativeEngine(model, end_ids=[], decode=decode).sample(PROMPTS, params)
        for before, after in zip(whole[1], stopped[1], strict=True):
            assert after.token_ids == before.token_ids[: len(after.token_ids)]
            assert (after.finish_reason == "stop") == (after.token_ids[-2:] == stop)
            assert stop not in [after.token_ids[i : i + 2] for i in range(len(after.token_ids) - 2)]
        assert stopped[1][2].finish_reason == "stop" and len(stopped[1][2].token_ids) <= 9


def test_a_thinking_budget_closes_the_block_and_marks_what_it_put_there(model: PreTrainedModel) -> None:
    close = (50, 51)
    engine = NativeEngine(model, end_ids=[], think_end_ids=close)
    thinking = [replace(prompt, thinking=True) for prompt in PROMPTS]
    free = engine.sample(thinking, SamplingParams(20))
    held = engine.sample(thinking, SamplingParams(20, thinking_budget=6))
    for before, after in zip(free, held, strict=True):
        for one, other in zip(before, after, strict=True):
            assert other.token_ids[:6] == one.token_ids[:6]
            assert other.token_ids[6:8] == close
            assert other.scored == [True] * 6 + [False] * 2 + [True] * 12
            assert (len(other.token_ids), len(other.logprobs)) == (20, 18)
    assert tokens(engine.sample(PROMPTS, SamplingParams(20, thinking_budget=6))) == tokens(free)


def test_what_follows_a_forced_token_was_drawn_after_it(model: PreTrainedModel) -> None:
    engine = NativeEngine(model, end_ids=[], think_end_ids=(50,))
    prompt = replace(PROMPTS[1], thinking=True)
    for sample in engine.sample([prompt], SamplingParams(14, thinking_budget=5))[0]:
        ids = [*prompt.token_ids, *sample.token_ids]
        batch = TokenBatch.collate([ids], [[False] * len(prompt.token_ids) + sample.scored], 0)
        expected = token_logprobs(model, batch).logprobs
        torch.testing.assert_close(torch.tensor(sample.logprobs), expected, atol=1e-5, rtol=0)


def test_a_block_closed_in_time_is_left_alone(model: PreTrainedModel) -> None:
    prompt = replace(PROMPTS[0], thinking=True)
    free = NativeEngine(model, end_ids=[]).sample([prompt], SamplingParams(12))[0]
    close = free[0].token_ids[3:4]  # what the first sample draws at position 3 is now the end of thinking
    held = NativeEngine(model, end_ids=[], think_end_ids=close).sample(
        [prompt], SamplingParams(12, thinking_budget=5)
    )[0]
    assert held[0].token_ids == free[0].token_ids and held[0].drawn is None
    for one, other in zip(free, held, strict=True):
        assert (other.drawn is None) == (close[0] in one.token_ids[:5])


def test_what_the_engine_was_not_made_for_is_refused(model: PreTrainedModel) -> None:
    engine = NativeEngine(model, end_ids=[])
    with pytest.raises(ValueError, match="think block"):
        engine.sample(PROMPTS, SamplingParams(4, thinking_budget=2))
    with pytest.raises(ValueError, match="decode"):
        engine.sample(PROMPTS, SamplingParams(4, stop_texts=("x",)))
