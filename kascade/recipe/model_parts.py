"""What a recipe may say about the model itself: precision, context, experts, draft heads.

Sources: [N3] Nemotron 3 Nano (arXiv 2512.20848), [S3] Nemotron 3 Super (arXiv 2604.12374), [WP] Nemotron 3
white paper (arXiv 2512.20856), [C1] Nemotron-Cascade (arXiv 2512.13607), [YaRN] arXiv 2309.00071.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from kascade.recipe.checks import CrossCheckError, Problem
from kascade.recipe.parts import Part, Share

PrecisionName = Literal["fp32", "bf16", "fp8", "nvfp4"]
ThinkingSwitch = Literal["template", "system", "slash"]
Word = Annotated[str, Field(min_length=1, max_length=200)]


class LowPrecision(Part):
    """How fp8 and nvfp4 are used; which layers stay out of them is `kascade.models.precision`."""

    high_precision_layers: Share = Field(
        0.15, description="share of the layers, the last ones, that stay in bfloat16 [WP §2.4]"
    )
    fp8_scaling: Literal["current", "delayed", "mxfp8"] = Field(
        "current",
        description="current: one scale a tensor, from its values now (Nemotron-H, arXiv 2504.03624); "
        "delayed: from its past values; mxfp8: one a block of 32 (Blackwell)",
    )


class LongContext(Part):
    """YaRN: rotary positions stretched to `factor` times the context the model was trained on. [C1 App. B]

    The numbers go into the base checkpoint's config, so that every later step and every server reads them.
    """

    method: Literal["yarn"] = Field("yarn", description="how positions are stretched; YaRN is the only one")
    factor: float = Field(2.0, gt=1, description="new context over the original one [C1 App. B]")
    original_max_position_embeddings: PositiveInt | None = Field(
        None, description="context of the original training; None: the config's max_position_embeddings"
    )
    beta_fast: PositiveFloat = Field(32.0, description="rotations above which nothing changes [YaRN §3.2]")
    beta_slow: PositiveFloat = Field(
        1.0, description="rotations below which positions are interpolated [YaRN §3.2]"
    )
    attention_factor: PositiveFloat | None = Field(
        None, description="scale of queries and keys; None: 0.1 ln(factor) + 1 [YaRN §3.4]"
    )
    truncate: bool = Field(True, description="round the range between the betas to whole dimensions")

    @model_validator(mode="after")
    def _betas_are_a_range(self) -> LongContext:
        if self.beta_fast <= self.beta_slow:
            what = f"beta_fast {self.beta_fast} is not above beta_slow {self.beta_slow}"
            raise CrossCheckError([Problem(("beta_fast",), what, allowed="beta_fast > beta_slow")])
        return self


class MoE(Part):
    """How a stage treats experts. Without it they are trained like all other weights. [N3 §3.2.5]"""

    freeze_router: bool = Field(True, description="routers keep their weights during RL [N3 §3.2.5]")
    expert_bias_rate: float = Field(
        1e-3,
        ge=0,
        description="step of load balancing without an auxiliary loss, an update; 0: none [N3 §3.2.5]",
    )
    routing_replay: bool = Field(
        False, description="trainer forwards use the experts the sampler used (R3, arXiv 2510.11370)"
    )


class MTP(Part):
    """How a stage trains the multi-token-prediction head. Without it the head is kept as it is."""

    loss_scale: PositiveFloat = Field(
        0.3, description="weight of the head's mean loss: 0.3 in pretraining and RL [S3], 0.1 in Ultra's SFT"
    )
    depth: PositiveInt = Field(
        1, description="tokens ahead that it learns to draft, its own output fed back (Super: 2) [WP §2.3]"
    )
    train_backbone: bool = Field(
        True, description="let its gradient reach the backbone; false: only the head learns from it"
    )
