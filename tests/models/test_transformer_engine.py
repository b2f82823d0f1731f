"""Swapping layers, against a small stand-in with Transformer Engine's interface.

It computes in full precision, and refuses what the real one refuses: no recipe, rows that are no whole
blocks, unknown arguments.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny_architectures import nemotron_h_config, qwen3_moe_config, tiny_tokenizer
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from kascade.models import transformer_engine
from kascade.models.load import load_model, save_model
from kascade.models.low_precision import apply_precision, precision_faults
from kascade.recipe.schema import LowPrecision

recipes_in_use: list[object] = []
products: list[tuple[str, str]] = []  # what kind of layer computed under which recipe


class Format(Enum):
    HYBRID = "hybrid"


@dataclass
class Float8CurrentScaling:
    fp8_format: Format


@dataclass
class DelayedScaling:
    fp8_format: Format


class MXFP8BlockScaling: ...


class NVFP4BlockScaling: ...


@contextmanager
def autocast(enabled: bool, recipe: object) -> Iterator[None]:
    recipes_in_use.append(recipe)
    yield
    recipes_in_use.pop()


def computing(kind: str, rows: Sequence[int]) -> None:
    assert recipes_in_use, f"{kind} computes outside of any recipe"
    assert all(count % 32 == 0 for count in rows), f"{kind} got {rows} rows"
    products.append((kind, type(recipes_in_use[-1]).__name__))


class Linear(nn.Linear):
    def __init__(
        self, inner: int, outer: int, *, bias: bool, params_dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(inner, outer, bias=bias, dtype=params_dtype, device=device)

    def forward(self, x: Tensor) -> Tensor:
        computing("linear", [len(x)])
        return super().forward(x)

    def get_extra_state(self) -> Tensor:
        return torch.zeros(1)

    def set_extra_state(self, state: Tensor) -> None: ...


class GroupedLinear(nn.Module):
    def __init__(
        self,
        count: int,
        inner: int,
        outer: int,
        *,
        bias: bool,
        params_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        assert not bias
        for i in range(count):
            self.register_parameter(
                f"weight{i}", nn.Parameter(torch.empty(outer, inner, dtype=params_dtype, device=device))
            )

    def forward(self, x: Tensor, m_splits: list[int]) -> Tensor:
        computing("experts", m_splits)
        parts = torch.split(x, m_splits)
        return torch.cat([part @ getattr(self, f"weight{i}").T for i, part in enumerate(parts)])


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    names = (
        "transformer_engine",
        "transformer_engine.common",
        "transformer_engine.common.recipe",
        "transformer_engine.pytorch",
    )
    modules = {name: ModuleType(name) for name in names}
    for kind in (Format, Float8CurrentScaling, DelayedScaling, MXFP8BlockScaling, NVFP4BlockScaling):
        setattr(modules["transformer_engine.common.recipe"], kind.__name__, kind)
    pytorch = modules["transformer_engine.pytorch"]
    pytorch.Linear, pytorch.GroupedLinear, pytorch.autocast = Linear, GroupedLinear, autocast
    for check in ("is_fp8_available", "is_mxfp8_available"):
        setattr(pytorch, check, lambda return_reason: (True, ""))
    pytorch.is_nvfp4_available = lambda return_reason: (
        False,
        "Device compute capability 10.0 or higher required",
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    transformer_engine._linear_class.cache_clear()
    products.clear()
    yield pytorch
    transformer_engine._linear_class.cache_clear()
    assert recipes_in_use == []


def hybrid() -> PreTrainedModel:
    torch.manual_seed(0)
    config = nemotron_h_config(
        hidden_size=64, moe_latent_size=None, mamba_num_heads=32, mamba_head_dim=4, n_groups=1,
        ssm_state_size=16, moe_intermediate_size=64, moe_shared_expert_intermediate_size=64,
        hybrid_override_pattern="ME*MEM-",
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def sparse_qwen3() -> PreTrainedModel:
    torch.manual_seed(0)
    config = qwen3_moe_config()
    config.num_hidden_layers = 4
    return AutoModelForCausalLM.from_config(config).eval()


IDS = torch.randint(2, 32, (3, 7), generator=torch.Generator().manual_seed(0))


def swapped(model: PreTrainedModel, precision: str, low: LowPrecision | None = None) -> PreTrainedModel:
    apply_precision(model, precision, low or LowPrecision())
    return model


@pytest.mark.parametrize("make", [hybrid, sparse_qwen3])
@pytest.mark.parametrize("precision", ["fp8", "nvfp4"])
def test_swapped_layers_compute_what_the_model_did(make: object, precision: str) -> None:
    plain = make()
    model = swapped(make(), precision)
    assert transformer_engine.is_swapped(model) and not transformer_engine.is_swapped(plain)
    for one in (plain, model):
        one(input_ids=IDS, labels=IDS).loss.backward()
    torch.testing.assert_close(model(input_ids=IDS).logits, plain(input_ids=IDS).logits, atol=1e-5, rtol=1e-5)
    assert {kind for kind, _ in products} >= {"experts"}
    for name, parameter in plain.named_parameters():
        if ".experts." not in name:
            torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad, atol=1e-5, rtol=1e-4)


def test_mamba_outputs_have_their_own_format_under_nvfp4() -> None:
    model = swapped(hybrid(), "nvfp4")
    model(input_ids=IDS)
    formats = {name: kind for kind, name in products}
    assert set(formats) == {"NVFP4BlockScaling", "MXFP8BlockScaling"}
    out_projections = sum(name == "MXFP8BlockScaling" for _, name in products)
    assert out_projections == 2  # of three Mamba layers, one is among the last 15%
    assert ("experts", "NVFP4BlockScaling") in products


def test_gradients_of_experts_are_the_models() -> None:
    plain, model = hybrid(), swapped(hybrid(), "fp8")
    for one in (plain, model):
        one(input_ids=IDS, labels=IDS).loss.backward()
    for layer in (1, 4):
        expected = plain.model.layers[layer].mixer.experts
        found = model.model.layers[layer].mixer.experts
        for expert in range(4):
            for grouped, stacked in ((found.up, expected.up_proj), (found.down, expected.down_proj)):
                grad = getattr(grouped, f"weight{expert}").grad
                torch.testing.assert_close(grad, stacked.grad[expert], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("make", [hybrid, sparse_qwen3])
def test_saved_weights_are_the_models_own(make: object, tmp_path: Path) -> None:
    plain = make()
    save_model(swapped(make(), "fp8"), tiny_tokenizer(), tmp_path)
    loaded = load_model(tmp_path, device="cpu")
    expected, found = plain.state_dict(), loaded.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_a_copy_computes_on_its_own_and_errors_leave_no_recipe_behind() -> None:
    model = swapped(hybrid(), "nvfp4")
    other = copy.deepcopy(model)
    with torch.no_grad():
        model.model.layers[1].mixer.experts.up.weight0.zero_()
    assert not torch.equal(model(input_ids=IDS).logits, other(input_ids=IDS).logits)
    with pytest.raises(IndexError):
        model(input_ids=IDS + 1000)
    assert recipes_in_use == []


def test_recipes_of_fp8() -> None:
    for scaling, name in (
        ("current", "Float8CurrentScaling"),
        ("delayed", "DelayedScaling"),
        ("mxfp8", "MXFP8BlockScaling"),
    ):
        products.clear()
        swapped(hybrid(), "fp8", LowPrecision(fp8_scaling=scaling))(input_ids=IDS)
        assert {recipe for _, recipe in products} == {name}


def test_what_the_library_says_is_passed_on(engine: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(transformer_engine, "installed", lambda: True)
    assert precision_faults("fp8", LowPrecision()) == []
    (fault,) = precision_faults("nvfp4", LowPrecision())
    assert "compute capability 10.0" in fault.what and fault.remedy
    del engine.is_mxfp8_available
    assert len(precision_faults("nvfp4", LowPrecision())) == 2
    monkeypatch.setattr(transformer_engine, "installed", lambda: False)
    (fault,) = precision_faults("fp8", LowPrecision())
    assert "not installed" in fault.what and "kascade[fp8]" in fault.remedy
