"""What a training forward keeps: recomputing goes on, whatever else is done with the model."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from kascade.miniature.config import mini_config
from kascade.models.activations import evaluated, use_activations
from kascade.models.adapter_set import hang_adapter, seen_with
from kascade.models.adapters import add_adapter, write_adapter
from kascade.models.batch import TokenBatch
from kascade.models.logprobs import token_logprobs
from kascade.recipe.adapter import Adapter
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import Prompt, SamplingParams

KINDS = ["mini-qwen3", "mini-nemotron-h"]


def model_of(kind: str, activations: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = mini_config(kind, 64, pad_token_id=0, bos_token_id=None, eos_token_id=1)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    use_activations(model, activations)  # type: ignore[arg-type]
    return model


def kept(model: PreTrainedModel) -> int:
    """Bytes that a forward with gradient keeps for its backward, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    rows = [[2 + (i * 7 + j) % 60 for j in range(48)] for i in range(4)]
    batch = TokenBatch.collate(rows, [[j > 0 for j in range(48)] for _ in rows], 0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        token_logprobs(model, batch).logprobs.sum().backward()
    return sum(seen.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("adapted", [False, True])
def test_layers_are_computed_again_after_everything_that_is_done_with_a_model(
    kind: str, adapted: bool, tmp_path: Path
) -> None:
    whole, model = model_of(kind, "keep"), model_of(kind, "recompute")
    if adapted:
        for one in (whole, model):
            add_adapter(one, Adapter(rank=4), 0)
    few = kept(model)
    assert few < kept(whole) / 2
    NativeEngine(model, end_ids=[]).sample([Prompt((3, 4), 2, 0)], SamplingParams(max_new_tokens=3))
    assert kept(model) == few
    if adapted:
        write_adapter(model, None, tmp_path, base="0" * 64)
        hang_adapter(model, tmp_path, "teacher")
        with seen_with(model, "teacher"), torch.no_grad():
            pass
        assert kept(model) == few


def test_each_part_is_as_before_and_new_ones_do_not_train() -> None:
    model = model_of("mini-qwen3", "recompute")
    before = {name for name, module in model.named_modules() if module.training}
    assert before
    with pytest.raises(RuntimeError), evaluated(model):
        assert not any(module.training for module in model.modules())
        model.new = torch.nn.Dropout()
        raise RuntimeError
    assert {name for name, module in model.named_modules() if module.training} == before
