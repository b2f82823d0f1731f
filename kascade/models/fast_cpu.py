"""Faster plain-torch paths for `nemotron_h` on CPU: the same functions, computed in fewer passes.

transformers' reference code is written for clarity; on a CPU a depthwise `conv1d`, the segment sums of
the Mamba-2 scan and the loop over experts take most of a small model's time. `apply` swaps in equal
functions; other devices keep the original ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DENSE_EXPERTS = "kascade_dense"


def apply(model: PreTrainedModel) -> None:
    """Use the fast paths for this model where they fit: `nemotron_h` on CPU. Weights stay as they are."""
    if model.config.model_type != "nemotron_h" or model.device.type != "cpu":
        return
    _install()
    model.set_experts_implementation(DENSE_EXPERTS)


def _install() -> None:
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(DENSE_EXPERTS, dense_experts)


def dense_experts(experts: nn.Module, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """All experts for all tokens as two matrix products, weighted by the routing (0 for unchosen ones).

    hidden: [N, D]; top_k_index, top_k_weights: [N, K]. Equal to the sparse way because
    sum_e w_e Down_e f(Up_e x) = [Down_1 ... Down_E] [w_1 f(Up_1 x); ...]. Cheaper than gathering
    tokens by expert while experts are few and small.
    """
    up: Any = experts.up_proj
    down: Any = experts.down_proj
    num_experts, width, _ = up.shape
    routing = torch.zeros(len(hidden), num_experts, dtype=top_k_weights.dtype)
    routing = routing.scatter(1, top_k_index, top_k_weights)
    act: Any = experts.act_fn
    inner = act(F.linear(hidden, up.flatten(0, 1))).unflatten(-1, (num_experts, width))
    inner = (inner * routing.unsqueeze(-1).to(inner.dtype)).flatten(1)
    return F.linear(inner, down.permute(1, 0, 2).reshape(-1, num_experts * width))
