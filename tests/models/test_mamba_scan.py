"""The quadratic scan is transformers' reference scan: outputs, final states and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.models.nemotron_h import modeling_nemotron_h

from kascade.models.mamba_scan import quadratic_scan

HEADS, WIDTH, STATES, CHUNK = 4, 6, 5, 8
reference_scan = modeling_nemotron_h.mamba2_chunk_scan
while hasattr(reference_scan, "__wrapped__"):
    reference_scan = reference_scan.__wrapped__


def inputs(length: int, groups: int, *, start: bool) -> dict[str, Tensor]:
    torch.manual_seed(length)
    made = {
        "x": torch.randn(3, length, HEADS, WIDTH),
        "dt": torch.randn(3, length, HEADS),
        "A": -torch.rand(HEADS) - 0.1,
        "B": torch.randn(3, length, groups, STATES),
        "C": torch.randn(3, length, groups, STATES),
        "D": torch.randn(HEADS),
        "dt_bias": torch.randn(HEADS),
    }
    if start:
        made["initial_states"] = torch.randn(3, HEADS, WIDTH, STATES)
    return {name: value.requires_grad_() for name, value in made.items()}


@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize(("length", "groups"), [(1, 1), (5, 1), (8, 2), (19, 4)])
def test_outputs_states_and_gradients_are_those_of_the_reference(
    length: int, groups: int, start: bool
) -> None:
    found = []
    for scan in (quadratic_scan, reference_scan):
        made = inputs(length, groups, start=start)
        x = made.pop("x")
        named = {name: made.pop(name) for name in ("dt", "A", "B", "C")}
        y, states = scan(
            x,
            *named.values(),
            CHUNK,
            **made,
            dt_softplus=True,
            dt_limit=(0.01, float("inf")),
            return_final_states=True,
        )
        leaves = [x, *named.values(), *made.values()]
        weights = torch.linspace(-1, 1, y.numel()).view(y.shape)
        gradients = torch.autograd.grad((y * weights).sum() + states.square().sum(), leaves)
        found.append([y, states, *gradients])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)  # float32 sums in another order
