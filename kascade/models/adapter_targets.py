"""Which layers of a model can have an adapter; read from config.json, before anything is loaded. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kascade.errors import Fault
from kascade.recipe.checks import nearest

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # as peft names them
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
GATED = ("gate_proj", "up_proj", "down_proj")
NEVER = {
    "lm_head": "the output layer keeps its weights: log-probabilities are computed on them",
    "embed_tokens": "embeddings keep their weights",
    "embeddings": "embeddings keep their weights",
    "gate": "routers keep their weights",
    "experts": "experts are stacked in one tensor, which no linear layer holds",
}
MAMBA = {
    name: f"Mamba kernels read the weight of {name} past the layer, so an adapter on it would do nothing"
    for name in ("out_proj", "conv1d")
}


def known_targets(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the layers that can have an adapter in a model of this config.json; None: not known here."""
    kind = config.get("model_type")
    if kind == "qwen3":
        return (*ATTENTION, *GATED)
    if kind == "qwen3_moe":
        return ATTENTION  # peft takes the names of dense layers beside them for those of stacked experts
    return _hybrid(config) if kind == "nemotron_h" else None


def _hybrid(config: Mapping[str, Any]) -> tuple[str, ...]:
    """`nemotron_h`: by the kinds of layers that there are."""
    named = config.get("layers_block_type") or list(config.get("hybrid_override_pattern") or "")
    kinds = set(named)
    found: list[str] = []
    if kinds & {"full_attention", "attention", "*"}:
        found += ATTENTION
    if kinds & {"linear_attention", "mamba", "M"}:
        found += ["in_proj"]
    if kinds & {"mlp", "moe", "-", "E"}:
        found += ["up_proj", "down_proj"]
    if kinds & {"moe", "E"} and config.get("moe_latent_size"):
        found += ["fc1_latent_proj", "fc2_latent_proj"]
    return tuple(found)


def target_faults(
    kind: Any, targets: Iterable[str], there: Iterable[str], where: str = "adapter.targets"
) -> list[Fault]:
    """A fault for each target that the model lacks or that must not have an adapter.

    kind: the config's model_type. there: names of the layers that can have one.
    """
    known = tuple(there)
    faults = []
    for name in targets:
        if name in known:
            continue
        trap = MAMBA.get(name) if kind == "nemotron_h" else None
        what = trap or NEVER.get(name) or f"a {kind} model has no linear layer {name!r}"
        faults.append(Fault(where, what, ", ".join(known), nearest(name, known) or f"take {name} out"))
    return faults
