"""The light table of tensors is what transformers builds, what autograd keeps, and what processes hold."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_architectures import (
    nemotron_h_by_names,
    nemotron_h_config,
    nemotron_h_without_latent,
    qwen3_config,
    qwen3_moe_config,
)
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    NemotronHConfig,
    PreTrainedModel,
    Qwen3Config,
    Qwen3MoeConfig,
)

from kascade.models import trunk
from kascade.models.adapters import add_adapter, trained_tensors
from kascade.models.batch import TokenBatch
from kascade.models.mtp import add_mtp_head, mtp_scores
from kascade.recipe.adapter import Adapter
from kascade.recipe.layout import Layout
from kascade.recipe.memory import draft_memory, local_elements, tensors_of
from kascade.recipe.model_config import config_of, known_models
from kascade.recipe.shapes import ModelShape, shape_of

CONFIGS = (qwen3_config, qwen3_moe_config, nemotron_h_config, nemotron_h_by_names, nemotron_h_without_latent)
NANO, QWEN = "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-Base-BF16", "Qwen/Qwen3-14B-Base"


def described(config: Any) -> ModelShape:
    found = shape_of(json.loads(json.dumps(config.to_dict(), default=str)))
    assert found is not None
    return found


@pytest.mark.parametrize("make", CONFIGS)
def test_parameters_are_counted_as_transformers_builds_them(make: Callable[[], Any]) -> None:
    model = AutoModelForCausalLM.from_config(make())
    assert described(model.config).size == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("hub", known_models())
def test_known_models_have_the_size_that_transformers_gives_their_configs(hub: str) -> None:
    own = dict(known_models()[hub])
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[own.pop("model_type")](**own))
    shape = shape_of(known_models()[hub])
    assert shape is not None
    assert shape.size == sum(p.numel() for p in model.parameters())


def test_adapters_are_counted_as_peft_makes_them() -> None:
    for make in CONFIGS:
        model = AutoModelForCausalLM.from_config(make())
        for targets in (None, ("q_proj", "v_proj")):
            fresh = AutoModelForCausalLM.from_config(make())
            add_adapter(fresh, Adapter(rank=3, targets=targets), 0)
            made = sum(t.numel() for t in trained_tensors(fresh).values())
            assert described(model.config).adapter_size(3, targets) == made


def test_a_source_that_is_not_known_has_no_shape(tmp_path: Path) -> None:
    assert config_of("somebody/something") is None
    assert config_of("builtin://mini-nemotron-h") is not None
    assert shape_of({"model_type": "llama"}) is None
    assert config_of(str(tmp_path)) is None


def kept_of(model: PreTrainedModel, length: int, monkeypatch: pytest.MonkeyPatch, *, own: bool) -> float:
    """Elements that a forward leaves for its backward, weights not counted."""
    monkeypatch.setattr(trunk, "_is_plain", (lambda model: True) if own else (lambda model: False))
    ids = torch.randint(2, 100, (2, length), generator=torch.Generator().manual_seed(0)).tolist()
    batch = TokenBatch.collate(ids, [[i > 0 for i in range(length)] for _ in ids], 0)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}
    alive: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that its place is not given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        trunk.predicting_states(model, batch)
    monkeypatch.undo()
    return sum(seen.values()) / 4


SIZES = {
    "vocab_size": 128,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 48}
HYBRID = {
    **SIZES, **EXPERTS, "mamba_num_heads": 4, "mamba_head_dim": 24, "ssm_state_size": 16, "n_groups": 2,
    "chunk_size": 64, "n_routed_experts": 8, "moe_shared_expert_intermediate_size": 96,
    "intermediate_size": 160,
}  # fmt: skip
DENSE = {"intermediate_size": 160, "num_hidden_layers": 4}


def dense(layers: int) -> Any:
    return Qwen3Config(**{**SIZES, **DENSE, "num_hidden_layers": layers})


def sparse(layers: int) -> Any:
    return Qwen3MoeConfig(**{**SIZES, **EXPERTS, **DENSE, "num_hidden_layers": layers}, num_experts=8)


def hybrid(block: str) -> Callable[[int], Any]:
    return lambda layers: NemotronHConfig(**HYBRID, hybrid_override_pattern="M" + block * layers)


def odd(settings: dict[str, Any]) -> list[Any]:
    """Configs of each family with settings that published models rarely have."""
    blocks = {**HYBRID, "hybrid_override_pattern": "M*E-M"}
    every_other = {"num_experts": 6, "decoder_sparse_step": 2, "mlp_only_layers": [3]}
    return [
        Qwen3Config(**{**SIZES, **DENSE, **settings}),
        Qwen3MoeConfig(**{**SIZES, **EXPERTS, **DENSE, **every_other, **settings}),
        NemotronHConfig(**{**blocks, **settings}),
    ]


@pytest.mark.parametrize(
    "settings",
    [
        {"tie_word_embeddings": True}, {"attention_bias": True}, {"num_key_value_heads": 1},
        {"num_key_value_heads": 4, "tie_word_embeddings": True, "attention_bias": True}, {"mlp_bias": True},
        {"use_bias": True}, {"use_conv_bias": False}, {"n_shared_experts": 2}, {"moe_latent_size": 32},
        {"n_groups": 1, "conv_kernel": 2, "mlp_bias": True, "moe_latent_size": 16},
    ],
    ids=str,
)  # fmt: skip
def test_odd_settings_are_counted_as_transformers_builds_them(settings: dict[str, Any]) -> None:
    for config in odd(settings):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        assert described(config).size == sum(p.numel() for p in model.parameters()), config.model_type


KINDS: dict[str, tuple[Callable[[int], Any], bool]] = {
    "qwen3, own forward": (dense, True),
    "qwen3": (dense, False),
    "qwen3_moe": (sparse, False),
    **{f"nemotron_h {block}, own forward": (hybrid(block), True) for block in "M*E-"},
    **{f"nemotron_h {block}": (hybrid(block), False) for block in "*E-"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_token_keeps_is_what_autograd_saves(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From four measurements: two lengths, two depths, so that all that is not of the layer falls away."""
    make, own = KINDS[kind]
    saved = {
        (layers, length): kept_of(
            AutoModelForCausalLM.from_config(make(layers)).eval(), length, monkeypatch, own=own
        )
        for layers in (2, 4)
        for length in (256, 512)
    }
    of_a_layer = [(saved[4, length] - saved[2, length]) / 2 for length in (256, 512)]
    measured = (of_a_layer[1] - of_a_layer[0]) / (2 * 256)
    layer = described(make(4)).layers[-1]
    predicted = layer.kept_by_trunk if own else layer.kept
    assert predicted == pytest.approx(measured, rel=0.03)
    if layer.copied and own:
        assert layer.copied == pytest.approx(of_a_layer[0] - measured * 2 * 256, rel=0.05)


@pytest.mark.parametrize("kind", [kind for kind, (_, own) in KINDS.items() if not own])
def test_frozen_weights_spare_what_only_their_gradients_need(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, _ = KINDS[kind]
    saved = []
    for layers in (2, 4):
        model = AutoModelForCausalLM.from_config(make(layers)).eval()
        add_adapter(model, Adapter(rank=2), 0)
        saved.append(kept_of(model, 256, monkeypatch, own=False))
    layer = described(make(4)).layers[-1]
    predicted = layer.kept - layer.spared + 2 * len(layer.linear)
    assert predicted == pytest.approx((saved[1] - saved[0]) / 2 / (2 * 256), rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("hub", "shard", "experts"), [(QWEN, 16, 1), (NANO, 32, 1), (NANO, 24, 8)])
def test_elements_of_one_process_are_those_of_the_real_plan_on_the_meta_device(
    hub: str, shard: int, experts: int
) -> None:
    command = [sys.executable, str(Path(__file__).parent / "meta_bytes.py"), hub, str(shard), str(experts)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    shape = shape_of(known_models()[hub])
    assert shape is not None
    layout = Layout(shard=shard, experts=experts)
    assert sum(local_elements(tensors, layout) for tensors in tensors_of(shape)) == found["local"]
    assert shape.size == found["whole"]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_draft_head_is_counted_as_it_is_built_and_trained(steps: int) -> None:
    """Parameters, the bytes of masters, moments and gradients, and what a token keeps for its backward."""
    model = AutoModelForCausalLM.from_config(nemotron_h_config(num_nextn_predict_layers=steps)).eval()
    head, shape = add_mtp_head(model), described(model.config)
    own = sum(p.numel() for p in head.parameters())
    assert (shape.draft_size, shape.draft_steps) == (own, steps)
    for precision, trained, layout in (
        ("fp32", 16, Layout(precision="fp32", drafts=1, tokens=0)),
        ("bf16", 18, Layout(drafts=1, tokens=0)),
        ("bf16", 2, Layout()),
        ("bf16", 2, Layout(drafts=1, adapter=(2, None))),
    ):
        assert draft_memory(shape, layout) == trained * own, precision
    saved = [draft_kept(model, length, depth=2) for length in (128, 256)]
    per_token = (draft_memory(shape, Layout("fp32", drafts=2, tokens=1)) - 16 * own) / 4
    assert per_token == pytest.approx((saved[1] - saved[0]) / 256, rel=0.03)


def draft_kept(model: PreTrainedModel, length: int, depth: int) -> float:
    """Elements that two rows leave for the backward of the head alone."""
    ids = torch.randint(2, 30, (2, length), generator=torch.Generator().manual_seed(0))
    hidden = torch.randn(2, length, model.config.hidden_size, requires_grad=True)
    scored = torch.zeros_like(ids, dtype=torch.bool)
    scored[:, -1] = True
    model.mtp.requires_grad_(True)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}
    alive: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        if (storage := tensor.untyped_storage()).data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        mtp_scores(model, ids, scored, hidden, depth=depth, train_backbone=True)
    return sum(seen.values()) / 4
