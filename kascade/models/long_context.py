"""Longer contexts for models with rotary positions: YaRN (arXiv 2309.00071) as part of the config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kascade.errors import Fault
from kascade.recipe.schema import LongContext

# Their configs may carry rope_theta all the same, left over from where they came.
WITHOUT_ROPE = {
    "nemotron_h": "its attention uses no rotary positions (arXiv 2512.20856 §2.5): there is nothing to "
    "stretch, and it reads long inputs as it is",
}
REMEDY = "leave out model.long_context"


def long_context_faults(config: Mapping[str, Any], part: LongContext) -> list[Fault]:
    """Why `part` cannot be applied to a model with this config.json; empty when it can. Light: no torch."""
    where, kind = "model.long_context", config.get("model_type")
    if kind in WITHOUT_ROPE:
        return [Fault(where, f"a {kind} model cannot use it: {WITHOUT_ROPE[kind]}", remedy=REMEDY)]
    rope = _rope(config)
    if rope is None:
        return [
            Fault(where, f"the config of this {kind} model has no single set of RoPE numbers", remedy=REMEDY)
        ]
    if rope.get("rope_type", "default") != "default" and rope != _stretched(rope, config, part):
        what = f"the model's positions are stretched already (rope_type {rope['rope_type']!r})"
        return [Fault(where, what, "rope_type 'default'", REMEDY)]
    if part.original_max_position_embeddings is None and "max_position_embeddings" not in config:
        what = "the config does not say how long the original context was"
        return [Fault(where, what, remedy="give original_max_position_embeddings")]
    return []


def with_long_context(config: Mapping[str, Any], part: LongContext) -> dict[str, Any]:
    """config.json with YaRN in it. Only for a config without `long_context_faults`."""
    rope = _rope(config)
    if rope is None:
        raise ValueError("the config has no RoPE numbers")
    stretched = _stretched(rope, config, part)
    longest = round(part.factor * stretched["original_max_position_embeddings"])
    kept = {key: value for key, value in config.items() if key not in ("rope_scaling", "rope_theta")}
    return {
        **kept,
        "rope_parameters": stretched,
        "max_position_embeddings": max(longest, config.get("max_position_embeddings", 0)),
    }


def _rope(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The RoPE numbers in either spelling of config.json; None when there is not exactly one set."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if any(isinstance(value, dict) for value in found.values()):
        return None
    rope = {"rope_theta": config.get("rope_theta"), **found}
    rope["rope_type"] = rope.get("rope_type", rope.pop("type", "default"))
    return rope if rope["rope_theta"] is not None else None


def _stretched(rope: Mapping[str, Any], config: Mapping[str, Any], part: LongContext) -> dict[str, Any]:
    original = (
        part.original_max_position_embeddings
        or rope.get("original_max_position_embeddings")
        or config.get("max_position_embeddings")
    )
    numbers = {
        "rope_type": "yarn",
        "rope_theta": rope["rope_theta"],
        "factor": part.factor,
        "original_max_position_embeddings": original,
        "beta_fast": part.beta_fast,
        "beta_slow": part.beta_slow,
        "truncate": part.truncate,
    }
    if part.attention_factor is not None:
        numbers["attention_factor"] = part.attention_factor
    return numbers
