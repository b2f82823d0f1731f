"""AdamW, its schedule, and clipping. Numbers are the recipe's `Optimizer`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kascade.learning.masters import Masters
from kascade.learning.sharded import by_mesh
from kascade.recipe.schema import Optimizer


def build_optimizer(model: nn.Module, part: Optimizer, masters: Masters) -> torch.optim.AdamW:
    """AdamW in one fused kernel; weight decay on matrices only, not on norms, biases and other vectors."""
    trained = trained_parameters(model, masters)
    kinds = [
        ([p for p in trained if p.ndim >= 2], part.weight_decay),
        ([p for p in trained if p.ndim < 2], 0.0),
    ]
    # One group per mesh: a fused kernel takes tensors of one kind only.
    groups = [{"params": ps, "weight_decay": decay} for kind, decay in kinds for ps in by_mesh(kind)]
    return torch.optim.AdamW(groups, lr=part.learning_rate, betas=part.betas, fused=True)


def trained_parameters(model: nn.Module, masters: Masters) -> list[Tensor]:
    """What the optimiser steps, in the order of the model's parameters."""
    return [masters.of(parameter) for parameter in model.parameters() if parameter.requires_grad]


def learning_rate(part: Optimizer, step: int, total_steps: int) -> float:
    """Learning rate of update `step` (counted from 0): linear warm-up, then the schedule to its end."""
    if step < part.warmup_steps:
        done = step / part.warmup_steps
        return part.warmup_start + done * (part.learning_rate - part.warmup_start)
    if part.schedule == "constant" or part.final_learning_rate is None:
        return part.learning_rate
    done = min(1.0, (step - part.warmup_steps) / max(1, total_steps - part.warmup_steps))
    # Both go from 1 to 0; cosine: (1 + cos(pi done)) / 2, as in SGDR (arXiv 1608.03983).
    left = 1.0 - done if part.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return part.final_learning_rate + left * (part.learning_rate - part.final_learning_rate)
