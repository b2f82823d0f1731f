"""Low precision applied to a loaded model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kascade.errors import Fault
from kascade.models.precision import LOW, fp8, placements
from kascade.recipe.schema import LowPrecision, PrecisionName

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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

    # NVFP4 keeps Mamba's output projections in MXFP8, so it needs both.
    needed = {"nvfp4": ("nvfp4", "mxfp8"), "fp8": (fp8(low),)}[precision]
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


def apply_precision(model: PreTrainedModel, precision: PrecisionName | None, low: LowPrecision) -> None:
    """Swap the layers that compute in fp8 or nvfp4; nothing to do for the others."""
    if precision in LOW:
        from kascade.models import transformer_engine

        transformer_engine.swap_layers(model, placements(model, precision, low), low)
