"""A merged export is what peft merges, bit for bit; what it differs by from an adapter apart is rounding."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_architectures import nemotron_h_config, qwen3_config, qwen3_moe_config, tiny_tokenizer
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from kascade.models.adapters import add_adapter, trained_tensors, write_adapter
from kascade.models.load import save_model
from kascade.recipe.adapter import Adapter
from kascade.recipe.model_config import BUILTIN

CONFIGS = {"qwen3": qwen3_config, "qwen3_moe": qwen3_moe_config, "nemotron_h": nemotron_h_config}
IDS = torch.randint(2, 30, (3, 24), generator=torch.Generator().manual_seed(5))
ROUNDING = 5e-6  # of the largest logit, between two orders of a model's sums in float32
WEIGHTS = 2e-6  # of the largest logit, by the rounding of merged weights to float32


def base_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "miniature":
        folder = BUILTIN / "mini-nemotron-h"
        made: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else:
        made = AutoModelForCausalLM.from_config(CONFIGS[kind]())
    return made.eval()


def logits(model: Any, *, double: bool = False) -> Tensor:
    model = copy.deepcopy(model)
    whole = model.base_model.model if isinstance(model, PeftModel) else model
    if double:
        whole.set_experts_implementation("eager")  # the grouped product has no float64
        model.double()
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS).logits
    return found.double()


@pytest.mark.parametrize("kind", [*CONFIGS, "miniature"])
def test_a_merged_export_is_pefts_own_and_apart_it_differs_by_rounding(kind: str, tmp_path: Path) -> None:
    base = base_of(kind)
    adapted = copy.deepcopy(base)
    add_adapter(adapted, Adapter(rank=4, alpha=8), 1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in trained_tensors(adapted).values():
            tensor.copy_(0.05 * torch.randn(tensor.shape, generator=generator))
    write_adapter(adapted, tiny_tokenizer(), tmp_path / "adapter", "0" * 64)
    save_model(adapted, tiny_tokenizer(), tmp_path / "merged")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    apart = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "adapter").eval()
    theirs = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "adapter").merge_and_unload()
    merged = ours.state_dict()
    assert all(torch.equal(merged[name], tensor) for name, tensor in theirs.state_dict().items())
    exact = logits(apart, double=True)
    size = float(exact.abs().max())
    assert float((exact - logits(base, double=True)).abs().max()) > 1e-2 * size, "the adapter must matter"
    assert float((logits(ours, double=True) - exact).abs().max()) < WEIGHTS * size
    for model in (ours, apart):  # neither is nearer to what the numbers are
        assert float((logits(model) - exact).abs().max()) < ROUNDING * size
