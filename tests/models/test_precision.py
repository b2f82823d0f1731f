"""What computes in which format: NVIDIA's choices for Nemotron 3, without a GPU."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_architectures import nemotron_h_config, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, NemotronHConfig, PreTrainedModel, Qwen3Config

from kascade.errors import UserError
from kascade.models.load import load_model, save_model
from kascade.models.low_precision import precision_faults
from kascade.models.mtp import MTPHead
from kascade.models.precision import placements
from kascade.recipe.schema import LowPrecision

NANO = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"  # 52 layers: 23 Mamba-2, 23 MoE, 6 attention


@cache
def nano() -> PreTrainedModel:
    """Nemotron 3 Nano in full size, without memory; with a draft head, as Super and Ultra have."""
    config = NemotronHConfig(
        hybrid_override_pattern=NANO, hidden_size=2688, num_attention_heads=32, num_key_value_heads=2,
        head_dim=128, mamba_num_heads=64, mamba_head_dim=64, ssm_state_size=128, n_groups=8,
        intermediate_size=1856, moe_intermediate_size=1856, moe_shared_expert_intermediate_size=3712,
        n_routed_experts=128, num_experts_per_tok=6, vocab_size=131072, num_nextn_predict_layers=1,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        model.add_module("mtp", MTPHead(config))
    return model


def test_nemotron_3_nano_in_nvfp4() -> None:
    placed = placements(nano(), "nvfp4", LowPrecision())
    low_layers = NANO[:44]  # the last 15% of 52 layers are 7.8: eight stay high
    counts = Counter(placement.precision for placement in placed.values())
    mamba, sparse = low_layers.count("M"), low_layers.count("E")
    assert counts["mxfp8"] == mamba  # output projections
    assert counts["nvfp4"] == mamba + 3 * sparse  # input projections; experts, shared up and down
    assert placed["model.layers.0.mixer.in_proj"].precision == "nvfp4"
    assert placed["model.layers.0.mixer.out_proj"].precision == "mxfp8"
    assert placed["model.layers.1.mixer.experts"].precision == "nvfp4"
    assert placed["model.layers.1.mixer.shared_experts.up_proj"].precision == "nvfp4"
    for name in (
        "model.embeddings", "lm_head", "model.layers.1.mixer.gate", "model.layers.0.mixer.conv1d",
        "model.layers.5.mixer.q_proj", "model.layers.5.mixer.k_proj", "model.layers.5.mixer.v_proj",
        "model.layers.5.mixer.o_proj", "mtp.layers.0.eh_proj", "mtp.layers.1.mixer.experts",
    ):  # fmt: skip
        assert placed[name].precision == "bf16", name
    last = [name for name in placed if any(f".layers.{i}." in name for i in range(44, 52))]
    assert len(last) > 20 and {placed[name].precision for name in last} == {"bf16"}
    assert all(p.precision == "bf16" for name, p in placed.items() if name.startswith("mtp."))


def test_every_module_has_a_place_and_a_reason() -> None:
    placed = placements(nano(), "nvfp4", LowPrecision())
    matrices = {
        name for name, m in nano().named_modules() if getattr(getattr(m, "weight", None), "ndim", 0) >= 2
    }
    assert matrices <= set(placed)
    reasons = {placement.reason for placement in placed.values()}
    assert reasons == {
        "multi-token prediction [WP]", "embeddings [WP]", "output layer [RL]", "router [RL]",
        "convolution [RL]", "attention projection [WP]", "one of the last layers [WP]",
        "Mamba output projection [WP]", "default",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("scaling", "expected"), [("current", "fp8"), ("delayed", "fp8"), ("mxfp8", "mxfp8")]
)
def test_fp8_keeps_the_same_layers_high(scaling: str, expected: str) -> None:
    fp8 = placements(nano(), "fp8", LowPrecision(fp8_scaling=scaling))
    nvfp4 = placements(nano(), "nvfp4", LowPrecision())
    assert {n for n, p in fp8.items() if p.precision == "bf16"} == {
        n for n, p in nvfp4.items() if p.precision == "bf16"
    }
    assert {p.precision for p in fp8.values()} == {"bf16", expected}


def test_latent_projections_and_the_share_of_last_layers() -> None:
    config = nemotron_h_config(
        hidden_size=64, moe_latent_size=32, moe_intermediate_size=64, hybrid_override_pattern="MEME*MEME-"
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    placed = placements(model, "nvfp4", LowPrecision(high_precision_layers=0.3))
    assert placed["model.layers.1.mixer.fc1_latent_proj"].reason == "latent projection [WP]"
    assert placed["model.layers.1.mixer.fc2_latent_proj"].precision == "bf16"
    assert placed["model.layers.6.mixer.experts"].precision == "nvfp4"
    assert placed["model.layers.7.mixer.out_proj"].reason == "one of the last layers [WP]"
    everything = placements(model, "nvfp4", LowPrecision(high_precision_layers=0.0))
    assert everything["model.layers.9.mixer.up_proj"].precision == "nvfp4"
    nothing = placements(model, "nvfp4", LowPrecision(high_precision_layers=1.0))
    assert {p.precision for p in nothing.values()} == {"bf16"}


def test_qwen3_and_sizes_that_do_not_fit() -> None:
    def qwen3(width: int) -> PreTrainedModel:
        config = Qwen3Config(
            hidden_size=64, intermediate_size=width, num_hidden_layers=10, num_attention_heads=2,
            num_key_value_heads=1, head_dim=32, vocab_size=64,
        )  # fmt: skip
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)

    placed = placements(qwen3(128), "fp8", LowPrecision())
    low = {name for name, placement in placed.items() if placement.precision == "fp8"}
    assert low == {f"model.layers.{i}.mlp.{p}_proj" for i in range(8) for p in ("gate", "up", "down")}
    odd = placements(qwen3(100), "fp8", LowPrecision())
    assert odd["model.layers.0.mlp.up_proj"].reason == "its sizes are no multiples of 32"
    with pytest.raises(ValueError, match="same for all layers"):
        placements(qwen3(128), "bf16", LowPrecision())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("precision", ["fp8", "nvfp4"])
def test_a_format_that_this_machine_lacks_is_refused_before_loading(tmp_path: Path, precision: str) -> None:
    (fault,) = precision_faults(precision, LowPrecision())
    assert (fault.where, fault.allowed) == ("model.precision", "fp32, bf16")
    assert precision in fault.what and "NVIDIA GPU" in fault.what
    with pytest.raises(UserError) as caught:  # an empty folder's faults and this one, all at once
        load_model(tmp_path, precision=precision)
    assert len(caught.value.faults) > 1 and fault in caught.value.faults


@pytest.mark.parametrize(
    ("precision", "dtype"), [(None, torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_plain_precisions_load_anywhere(tmp_path: Path, precision: str | None, dtype: torch.dtype) -> None:
    save_model(tiny_model("qwen3"), tiny_tokenizer(), tmp_path)
    assert load_model(tmp_path, device="cpu", precision=precision).dtype == dtype
    assert precision_faults(precision, LowPrecision()) == []
