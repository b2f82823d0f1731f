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

from kascade.errors import Fault
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
class Placement:
    """In what a module's products are computed, and why."""

    precision: LayerPrecision
    reason: str


def placements(model: PreTrainedModel, precision: PrecisionName, low: LowPrecision) -> dict[str, Placement]:
    """Of every module with a matrix of weights, by name. Works on the meta device, too.

    Raises ValueError for a precision that is the same for all layers.
    """
    if precision not in LOW:
        raise ValueError(f"{precision} is the same for all layers")
    layers = model.config.num_hidden_layers
    first_kept = layers - math.ceil(low.high_precision_layers * layers)
    main: LayerPrecision = "nvfp4" if precision == "nvfp4" else _fp8(low)
    return {
        name: _placement(name, module, main, first_kept)
        for name, module in model.named_modules()
        if _has_matrix(module)
    }


def _fp8(low: LowPrecision) -> LayerPrecision:
    return "mxfp8" if low.fp8_scaling == "mxfp8" else "fp8"


def _placement(name: str, module: Any, main: LayerPrecision, first_kept: int) -> Placement:
    for rule in KEPT:
        if re.search(rule.pattern, name):
            return Placement("bf16", rule.reason)
    layer = re.search(r"\.layers\.(\d+)\.", name)
    if layer is None:
        return Placement("bf16", "outside the layers")
    if int(layer[1]) >= first_kept:
        return Placement("bf16", "one of the last layers [WP]")
    if any(size % BLOCK for size in _sizes(module)):
        return Placement("bf16", f"its sizes are no multiples of {BLOCK}")
    if main == "nvfp4" and re.search(MAMBA_OUTPUT.pattern, name):
        return Placement("mxfp8", MAMBA_OUTPUT.reason)
    return Placement(main, "default")


def is_experts(module: Any) -> bool:
    """Whether a module holds the experts of a layer, stacked: `down_proj` is [E, out, in]."""
    return getattr(getattr(module, "down_proj", None), "ndim", 0) == 3


def _has_matrix(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return is_experts(module) or (weight is not None and weight.ndim >= 2)


def _sizes(module: Any) -> tuple[int, ...]:
    weight = module.down_proj if is_experts(module) else module.weight
    return tuple(weight.shape[-2:])


def precision_faults(precision: PrecisionName | None, low: LowPrecision) -> list[Fault]:
    """Why this machine cannot compute in `precision`; empty when it can. Nothing is loaded."""
    if precision not in LOW:
        return []
    import torch

    where, allowed = "model.precision", "fp32, bf16"
    if not torch.cuda.is_available():
        remedy = "run this step where there is one, or set model.precision to bf16"
        return [Fault(where, f"{precision} needs an NVIDIA GPU, and there is none here", allowed, remedy)]
    from kascade.models import transformer_engine

    needed = {"nvfp4": ("nvfp4", "mxfp8"), "fp8": (_fp8(low),)}[precision]
    if not transformer_engine.installed():
        remedy = "pip install 'kascade[fp8]' into the image, or set model.precision to bf16"
        return [
            Fault(where, f"{precision} needs Transformer Engine, which is not installed", allowed, remedy)
        ]
    remedy = "use a GPU that has it (fp8: Hopper, mxfp8 and nvfp4: Blackwell), or set model.precision to bf16"
    return [
        Fault(where, f"{precision} cannot be used here: {reason}", allowed, remedy)
        for name in needed
        if (reason := transformer_engine.why_unavailable(name)) is not None
    ]


def dtype_of(precision: PrecisionName | None, device: torch.device) -> torch.dtype:
    """In what weights are kept; None: float32 on a CPU, bfloat16 elsewhere."""
    import torch

    if precision is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return torch.float32 if precision == "fp32" else torch.bfloat16


def apply_precision(model: PreTrainedModel, precision: PrecisionName | None, low: LowPrecision) -> None:
    """Swap the layers that compute in fp8 or nvfp4; nothing to do for the others."""
    if precision in LOW:
        from kascade.models import transformer_engine

        transformer_engine.swap_layers(model, placements(model, precision, low), low)
