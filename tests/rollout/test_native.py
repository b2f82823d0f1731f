from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from kascade.miniature.config import mini_config
from kascade.models.logprobs import TokenBatch, token_logprobs
from kascade.rollout import attention
from kascade.rollout.decoder import CacheDecoder, make_decoder
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import Prompt, Sample, SamplingParams

VOCABULARY, PAD = 96, 0
LENGTHS = (1, 2, 3, 7, 18, 40, 7, 33)


def model_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(1)
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, pad_token_id=PAD, bos_token_id=None, eos_token_id=1,
        )  # fmt: skip
    else:
        config = mini_config(kind, VOCABULARY, PAD, None, 1)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # sharper than at initialisation, so that layers matter and greedy has no near-ties
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(2.5)
    return model


def prompts_of(num_samples: int = 1) -> list[Prompt]:
    generator = torch.Generator().manual_seed(3)
    ids = [torch.randint(2, VOCABULARY, (n,), generator=generator).tolist() for n in LENGTHS]
    return [Prompt(tuple(tokens), num_samples, seed=i) for i, tokens in enumerate(ids)]


def engine_of(model: PreTrainedModel, end_ids: Sequence[int] = (), max_batch_rows: int = 256) -> NativeEngine:
    return NativeEngine(model, end_ids=end_ids, max_batch_rows=max_batch_rows)


def trainer_logprobs(
    model: PreTrainedModel, prompt: Prompt, sample: Sample, temperature: float
) -> torch.Tensor:
    ids = [*prompt.token_ids, *sample.token_ids]
    scored = [i >= len(prompt.token_ids) for i in range(len(ids))]
    return token_logprobs(model, TokenBatch.collate([ids], [scored], PAD), temperature=temperature).logprobs


KINDS = ["mini-nemotron-h", "mini-qwen3", "llama"]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_are_those_of_generate(kind: str) -> None:
    model, prompts = model_of(kind), prompts_of()
    ours = engine_of(model).sample(prompts, SamplingParams(20, temperature=0))
    for prompt, samples in zip(prompts, ours, strict=True):
        ids = torch.tensor([prompt.token_ids])
        theirs = model.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=-1, pad_token_id=PAD)
        assert list(samples[0].token_ids) == theirs[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_the_trainers(kind: str, temperature: float) -> None:
    model, prompts = model_of(kind), prompts_of(2)
    drawn = engine_of(model, end_ids=range(2, 10)).sample(
        prompts, SamplingParams(24, temperature=temperature)
    )
    for prompt, samples in zip(prompts, drawn, strict=True):
        for sample in samples:
            expected = trainer_logprobs(model, prompt, sample, temperature)
            # logits agree to 1e-5; dividing them by a temperature multiplies their difference
            allowed = 1e-5 / temperature
            torch.testing.assert_close(torch.tensor(sample.logprobs), expected, atol=allowed, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_batch_size_nor_order_changes_a_sample(kind: str) -> None:
    model, prompts, params = model_of(kind), prompts_of(5), SamplingParams(30)
    ends = range(2, 8)
    whole = engine_of(model, ends).sample(prompts, params)
    assert len({len(s.token_ids) for samples in whole for s in samples}) > 5  # rows do end at different times
    for rows in (1, 3, 7):
        refilled = engine_of(model, ends, max_batch_rows=rows).sample(prompts, params)
        assert tokens(refilled) == tokens(whole)
    backwards = engine_of(model, ends).sample(prompts[::-1], params)
    assert tokens(backwards[::-1]) == tokens(whole)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_copied_or_shared_prompts_give_the_same_by_products_or_by_compiled_loops(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts, params, ends = model_of(kind), prompts_of(5), SamplingParams(30), range(2, 8)
    by_loops = attention.kernels_for
    monkeypatch.setattr(attention, "kernels_for", lambda like: None)
    copied = engine_of(model, ends).sample(prompts, params)
    monkeypatch.setattr(attention, "GROWTH", 8)  # so that slots are moved again and again
    for most, kernels in ((64, lambda like: None), (0, lambda like: None), (64, by_loops), (0, by_loops)):
        monkeypatch.setattr(attention, "MOST_COPIED", most)
        monkeypatch.setattr(attention, "kernels_for", kernels)
        for rows in (256, 7):
            found = engine_of(model, ends, max_batch_rows=rows).sample(prompts, params)
            assert tokens(found) == tokens(copied)
            for ours, theirs in zip(found, copied, strict=True):
                for one, other in zip(ours, theirs, strict=True):
                    assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def tokens(groups: Sequence[Sequence[Sample]]) -> list[list[tuple[int, ...]]]:
    return [[sample.token_ids for sample in samples] for samples in groups]


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_and_samples_differ_and_stops_are_kept(kind: str) -> None:
    model, prompt = model_of(kind), prompts_of(6)[4]
    ends = frozenset(range(2, 12))
    first, second = engine_of(model, tuple(ends)).sample(
        [prompt, replace(prompt, seed=99)], SamplingParams(40)
    )
    assert len({sample.token_ids for sample in [*first, *second]}) == 12
    for sample in [*first, *second]:
        assert not ends & set(sample.token_ids[:-1])
        assert (sample.finish_reason == "stop") == (sample.token_ids[-1] in ends)
        assert sample.finish_reason == "stop" or len(sample.token_ids) == 40
        assert len(sample.logprobs) == len(sample.token_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_new_weights_are_taken_over_and_stamped(kind: str) -> None:
    model, prompts, params = model_of(kind), prompts_of(), SamplingParams(12, temperature=0)
    engine = engine_of(model)
    engine.load_weights(3)
    before = engine.sample(prompts, params)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    engine.load_weights(4)
    after = engine.sample(prompts, params)
    assert {s.weights_version for samples in before for s in samples} == {3}
    assert {s.weights_version for samples in after for s in samples} == {4}
    assert tokens(after) == tokens(engine_of(model).sample(prompts, params)) != tokens(before)


def test_a_raised_time_step_floor_is_kept_as_in_training() -> None:
    """The limit on the Mamba time step bites in prefill and decode alike (transformers' decode omits it)."""
    model, prompts = model_of("mini-nemotron-h"), prompts_of()
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = (0.7, float("inf"))
    drawn = engine_of(model).sample(prompts, SamplingParams(16))
    for prompt, (sample,) in zip(prompts, drawn, strict=True):
        expected = trainer_logprobs(model, prompt, sample, 1.0)
        torch.testing.assert_close(torch.tensor(sample.logprobs), expected, atol=1e-5, rtol=0)


def test_training_mode_survives_and_impossible_input_is_refused() -> None:
    model = model_of("mini-qwen3").train()
    engine = engine_of(model)
    engine.sample(prompts_of()[:1], SamplingParams(2))
    assert model.training
    with pytest.raises(ValueError, match="no tokens"):
        engine.sample([Prompt((), 1, 0)], SamplingParams(2))
    with pytest.raises(ValueError, match="positive"):
        engine_of(model, max_batch_rows=0)
    assert engine.sample([], SamplingParams(2)) == []


def test_architectures_without_a_lean_decoder_use_the_cache() -> None:
    assert isinstance(make_decoder(model_of("llama")), CacheDecoder)
    assert not isinstance(make_decoder(model_of("mini-qwen3")), CacheDecoder)
    assert isinstance(make_decoder(model_of("mini-qwen3").to(torch.bfloat16)), CacheDecoder)
