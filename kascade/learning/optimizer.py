"""AdamW, its schedule, and clipping. Numbers are the recipe's `Optimizer`."""

from __future__ import annotations

import math

import torch
from torch import nn

from kascade.recipe.schema import Optimizer


def build_optimizer(model: nn.Module, part: Optimizer) -> torch.optim.AdamW:
    """AdamW in one fused kernel; weight decay on matrices only, not on norms, biases and other vectors."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": part.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=part.learning_rate,
        betas=part.betas,
        fused=True,
    )


def learning_rate(part: Optimizer, step: int, total_steps: int) -> float:
    """Learning rate of update `step` (counted from 0): linear warm-up, then the schedule to its end."""
    if step < part.warmup_steps:
        done = step / part.warmup_steps
        return part.warmup_start + done * (part.learning_rate - part.warmup_start)
    if part.schedule == "constant" or part.final_learning_rate is None:
        return part.learning_rate
    done = min(1.0, (step - part.warmup_steps) / max(1, total_steps - part.warmup_steps))
    left = 1.0 - done if part.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return part.final_learning_rate + left * (part.learning_rate - part.final_learning_rate)
