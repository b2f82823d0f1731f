"""Decoding over memory that stays: the same answers as the other way, on a CPU eagerly, on CUDA recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from kascade.miniature.config import mini_config
from kascade.rollout.lean import Norm
from kascade.rollout.lean_nemotron_h import SPARSE_TOKENS, NemotronHDecoder, _MoE
from kascade.rollout.lean_qwen3 import Qwen3Decoder
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import Prompt, Sample, SamplingParams

VOCABULARY = 96
DECODERS: dict[str, Any] = {"mini-nemotron-h": NemotronHDecoder, "mini-qwen3": Qwen3Decoder}
PROMPTS = [Prompt(tuple(range(5, 5 + n)), 3, seed=n) for n in (2, 30, 11, 30)]
ENDS = range(2, 8)


def model_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(mini_config(kind, VOCABULARY, 0, None, 1)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(2.5)
    return model


def drawn(model: PreTrainedModel, decoder: Any, rows: int = 256) -> list[list[Sample]]:
    engine = NativeEngine(model, end_ids=ENDS, max_batch_rows=rows, decoder=decoder)
    return engine.sample(PROMPTS, SamplingParams(24))


def tokens(groups: Sequence[Sequence[Sample]]) -> list[tuple[int, ...]]:
    return [sample.token_ids for group in groups for sample in group]


@pytest.mark.parametrize("kind", DECODERS)
def test_static_memory_gives_the_same_answers(kind: str) -> None:
    model = model_of(kind)
    shared = drawn(model, DECODERS[kind](model, static=False))
    for rows in (256, 4):  # all at once, and refilled
        static = drawn(model, DECODERS[kind](model, static=True), rows)
        assert tokens(static) == tokens(shared)
        for ours, theirs in zip(static, shared, strict=True):
            for one, other in zip(ours, theirs, strict=True):
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_experts_give_the_same_for_few_tokens_and_for_many() -> None:
    model: Any = model_of("mini-nemotron-h")
    block = next(block for block in model.model.layers if block.block_type == "moe")
    layer = _MoE(block.mixer, Norm(block.norm))
    x = torch.randn(SPARSE_TOKENS, 128)
    with torch.no_grad():
        expected = x + block.mixer(block.norm(x)[None])[0]
        torch.testing.assert_close(layer.run(x), expected, atol=2e-5, rtol=1e-4)
        few = torch.cat([layer.run(part) for part in x.split(100)])
    torch.testing.assert_close(few, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: recorded steps were not run")
@pytest.mark.parametrize("kind", DECODERS)
def test_recorded_steps_give_the_answers_of_unrecorded_ones(kind: str) -> None:
    model: Any = model_of(kind).cuda()
    recorded = DECODERS[kind](model)
    assert recorded.static
    plain = drawn(model, DECODERS[kind](model, static=False))
    assert tokens(drawn(model, recorded)) == tokens(drawn(model, recorded, 4)) == tokens(plain)
    with torch.no_grad():  # what was recorded reads old copies of fused weights until it is refreshed
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    recorded.refresh()
    assert tokens(drawn(model, recorded)) == tokens(drawn(model, DECODERS[kind](model, static=False)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: bf16 decoding was not run")
@pytest.mark.parametrize("kind", DECODERS)
def test_bf16_logprobs_are_near_the_models_own(kind: str) -> None:
    model: Any = model_of(kind).to("cuda", torch.bfloat16)
    assert DECODERS[kind].supports(model)
    for prompt, group in zip(PROMPTS, drawn(model, DECODERS[kind](model)), strict=True):
        for sample in group:
            ids = torch.tensor([[*prompt.token_ids, *sample.token_ids]], device="cuda")
            logits = model(ids).logits[0, len(prompt.token_ids) - 1 : -1].float()
            own = logits.log_softmax(-1).gather(1, ids[0, len(prompt.token_ids) :, None]).squeeze(1)
            assert (own.cpu() - torch.tensor(sample.logprobs)).abs().mean() < 0.05
