"""Which layers compute in fp8 or nvfp4, and which stay in bfloat16: one table, first rule that matches.

Sources: [WP] Nemotron 3 white paper (arXiv 2512.20856 §2.4: the last 15% of layers, latent projections,
multi-token prediction, attention projections and embeddings in bfloat16, Mamba output projections in MXFP8
because NVFP4 flushes up to 40% of them to zero), [RL] NVIDIA's quantisation of Nemotron 3 Nano for RL (output
layer, routers and convolutions in bfloat16). The same table serves fp8, where it is on the safe side.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kascade.recipe.schema import LowPrecision, PrecisionName

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LayerPrecision = Literal["bf16", "fp8", "mxfp8", "nvfp4"]
LOW = ("fp8", "nvfp4")
BLOCK = 32  # sizes that low-precision products take are multiples of it (MXFP8's block; fp8 and nvfp4: 16)


@dataclass(frozen=True, slots=True)
class Rule:
    """Modules whose name matches stay in bfloat16."""

    pattern: str
    reason: str


KEPT = (
    Rule(r"^mtp\.", "multi-token prediction [WP]"),
    Rule(r"(^|\.)(embeddings|embed_tokens)$", "embeddings [WP]"),
    Rule(r"(^|\.)lm_head$", "output layer [RL]"),
    Rule(r"\.gate$", "router [RL]"),
    Rule(r"\.conv1d$", "convolution [RL]"),
    Rule(r"\.fc[12]_latent_proj$", "latent projection [WP]"),
    Rule(r"\.[qkvo]_proj$", "attention projection [WP]"),
)
MAMBA_OUTPUT = Rule(r"\.out_proj$", "Mamba output projection [WP]")


@dataclass(frozen=True, slots=True)
class ComputedIn:
    """In what a module's products are computed, and why."""

    precision: LayerPrecision
    reason: str


def placements(model: PreTrainedModel, precision: PrecisionName, low: LowPrecision) -> dict[str, ComputedIn]:
    """Of every module with a matrix of weights, by name. Works on the meta device, too.

    Raises ValueError for a precision that is the same for all layers.
    """
    if precision not in LOW:
        raise ValueError(f"{precision} is the same for all layers")
    layers = model.config.num_hidden_layers
    # Rounded up: a share of 15% keeps at least as many layers as it says.
    first_kept = layers - math.ceil(low.high_precision_layers * layers)
    main: LayerPrecision = "nvfp4" if precision == "nvfp4" else fp8(low)
    return {
        name: _placement(name, module, main, first_kept)
        for name, module in model.named_modules()
        if _has_matrix(module)
    }


def fp8(low: LowPrecision) -> LayerPrecision:
    return "mxfp8" if low.fp8_scaling == "mxfp8" else "fp8"


def _placement(name: str, module: Any, main: LayerPrecision, first_kept: int) -> ComputedIn:
    for rule in KEPT:
        if re.search(rule.pattern, name):
            return ComputedIn("bf16", rule.reason)
    layer = re.search(r"\.layers\.(\d+)\.", name)
    if layer is None:
        return ComputedIn("bf16", "outside the layers")
    if int(layer[1]) >= first_kept:
        return ComputedIn("bf16", "one of the last layers [WP]")
    if any(size % BLOCK for size in _sizes(module)):
        return ComputedIn("bf16", f"its sizes are no multiples of {BLOCK}")
    if main == "nvfp4" and re.search(MAMBA_OUTPUT.pattern, name):
        return ComputedIn("mxfp8", MAMBA_OUTPUT.reason)
    return ComputedIn(main, "default")


def is_experts(module: Any) -> bool:
    """Whether a module holds the experts of a layer, stacked: `down_proj` is [E, out, in]."""
    return getattr(getattr(module, "down_proj", None), "ndim", 0) == 3


def _has_matrix(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return is_experts(module) or (weight is not None and weight.ndim >= 2)


def _sizes(module: Any) -> tuple[int, ...]:
    weight = module.down_proj if is_experts(module) else module.weight
    return tuple(weight.shape[-2:])


def dtype_of(precision: PrecisionName | None, device: torch.device) -> torch.dtype:
    """In what weights are kept; None: float32 on a CPU, bfloat16 elsewhere."""
    import torch

    if precision is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return torch.float32 if precision == "fp32" else torch.bfloat16
