"""YaRN: the paper's frequencies, in the checkpoint's config; a reason where there is nothing to stretch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_architectures import END, PAD, nemotron_h_config, tiny_model, tiny_tokenizer

from kascade.models.load import load_model, save_model
from kascade.models.logprobs import TokenBatch, token_logprobs
from kascade.models.long_context import long_context_faults, with_long_context
from kascade.recipe.schema import LongContext
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import Prompt, SamplingParams

QWEN3 = {"model_type": "qwen3", "rope_theta": 1e6, "max_position_embeddings": 40960, "rope_scaling": None}


def stretched_folder(folder: Path, part: LongContext) -> Path:
    save_model(tiny_model("qwen3"), tiny_tokenizer(), folder)
    path = folder / "config.json"
    path.write_text(json.dumps(with_long_context(json.loads(path.read_text()), part)))
    return folder


def yarn_frequencies(theta: float, dim: int, original: int, part: LongContext) -> torch.Tensor:
    """Eq. 22-23 of the paper in plain floats: interpolated where slower than beta_slow turns, kept above
    beta_fast, a ramp over the dimensions between."""

    def dimension_of(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension_of(part.beta_fast)), 0)
    high = min(math.ceil(dimension_of(part.beta_slow)), dim - 1)
    values = []
    for i in range(dim // 2):
        plain = theta ** (-2 * i / dim)
        ramp = min(max((i - low) / max(high - low, 0.001), 0.0), 1.0)
        values.append(plain / part.factor * ramp + plain * (1 - ramp))
    return torch.tensor(values)


def test_the_loaded_model_turns_at_the_papers_frequencies(tmp_path: Path) -> None:
    part = LongContext(factor=4.0, original_max_position_embeddings=512, beta_fast=8.0)
    model = load_model(stretched_folder(tmp_path, part), device="cpu")
    assert model.config.max_position_embeddings >= 4 * 512
    rotary = model.model.rotary_emb
    torch.testing.assert_close(rotary.inv_freq, yarn_frequencies(10_000.0, 16, 512, part), rtol=1e-5, atol=0)
    assert rotary.attention_scaling == pytest.approx(0.1 * math.log(4.0) + 1)


def test_sampler_and_trainer_agree_in_the_stretched_context(tmp_path: Path) -> None:
    part = LongContext(factor=4.0, original_max_position_embeddings=16)
    model = load_model(stretched_folder(tmp_path, part), device="cpu")
    prompt = Prompt(tuple(range(2, 32)), 2, seed=3)  # beyond the original context
    (samples,) = NativeEngine(model, end_ids=[END]).sample([prompt], SamplingParams(8))
    for sample in samples:
        ids = [*prompt.token_ids, *sample.token_ids]
        scored = [i >= len(prompt.token_ids) for i in range(len(ids))]
        own = token_logprobs(model, TokenBatch.collate([ids], [scored], PAD)).logprobs.detach()
        torch.testing.assert_close(torch.tensor(sample.logprobs), own, atol=1e-5, rtol=0)


def test_the_original_context_is_the_configs_unless_given() -> None:
    default = with_long_context(QWEN3, LongContext())
    assert default["rope_parameters"]["original_max_position_embeddings"] == 40960
    assert default["max_position_embeddings"] == 81920
    given = with_long_context(QWEN3, LongContext(original_max_position_embeddings=32768))  # [C1 App. B]
    assert (given["rope_parameters"]["factor"], given["max_position_embeddings"]) == (2.0, 65536)
    assert "rope_theta" not in given and given["rope_parameters"]["rope_theta"] == 1e6


def test_applying_it_twice_changes_nothing() -> None:
    part = LongContext(original_max_position_embeddings=32768)
    once = with_long_context(QWEN3, part)
    assert long_context_faults(once, part) == []
    assert with_long_context(once, part) == once


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({**nemotron_h_config().to_dict(), "rope_theta": 10000.0}, "no rotary positions"),
        ({"model_type": "gpt2", "max_position_embeddings": 1024}, "no single set of RoPE"),
        (
            {"model_type": "gemma3_text", "rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
            "no single set of RoPE",
        ),
        ({**QWEN3, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "stretched already"),
        ({"model_type": "qwen3", "rope_theta": 1e6}, "how long the original context was"),
    ],
)
def test_refused_with_a_reason(config: dict[str, Any], reason: str) -> None:
    (fault,) = long_context_faults(config, LongContext())
    assert fault.where == "model.long_context"
    assert reason in fault.what
    assert fault.remedy


def test_numbers_that_make_no_sense_are_no_recipe() -> None:
    with pytest.raises(ValidationError, match="greater than 1"):
        LongContext(factor=1.0)
    with pytest.raises(ValidationError, match="beta_fast"):
        LongContext(beta_fast=1.0, beta_slow=2.0)
