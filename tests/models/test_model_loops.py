"""The compiled loops of models against PyTorch's own arithmetic."""

from typing import Any

import numba
import numpy as np
import pytest
import torch

from kascade.models import kernels
from kascade.models.loops import array, kernels_for


def test_the_exponential_is_right_to_a_few_units_of_rounding() -> None:
    @numba.njit  # type: ignore[untyped-decorator]
    def of_all(x: Any, out: Any) -> None:
        for i in range(len(x)):
            out[i] = kernels.exponential(x[i])

    x = np.concatenate([np.linspace(-87, 87, 100_001), [0.0]]).astype(np.float32)
    out = np.empty_like(x)
    of_all(x, out)
    error = np.abs(out / np.exp(x.astype(np.float64)) - 1)
    assert (error < 3e-7 + 1e-7 * np.abs(x)).all()  # x log2(e) is rounded, too
    assert out[-1] == 1
    low = np.array([-88.0, -1000.0, -np.inf], np.float32)
    out = np.ones_like(low)
    of_all(low, out)
    assert (out == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (50, 96)])
def test_the_gate_and_its_gradient(shape: tuple[int, int]) -> None:
    rows, inner = shape
    generator = torch.Generator().manual_seed(0)
    both = (torch.randn(rows, 2 * inner, generator=generator) * 8).requires_grad_()
    d_gated = torch.randn(rows, inner, generator=generator)
    gate, up = both.double().chunk(2, -1)
    expected = torch.nn.functional.silu(gate) * up
    expected.backward(d_gated.double())
    out, gated, d_both = torch.empty(rows, inner), torch.empty(rows, inner), torch.empty(rows, 2 * inner)
    kernels.gate(array(both), array(out))
    kernels.gate_backward(*map(array, (both, d_gated, gated, d_both)))
    torch.testing.assert_close(gated, out)
    torch.testing.assert_close(out.double(), expected.detach(), atol=1e-5, rtol=2e-6)
    assert both.grad is not None
    torch.testing.assert_close(d_both, both.grad, atol=1e-5, rtol=1e-5)


def test_the_norm_is_pytorchs() -> None:
    x, weight = torch.randn(9, 40), torch.randn(40)
    out = torch.empty_like(x)
    kernels.rms_norm(array(x), array(weight), 1e-6, array(out))
    torch.testing.assert_close(out, torch.nn.functional.rms_norm(x, (40,), weight, 1e-6))


def test_only_float32_on_a_cpu_is_computed_by_them() -> None:
    assert kernels_for(torch.zeros(1)) is kernels
    for other in (torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.float64)):
        assert kernels_for(other) is None
    assert kernels_for(torch.zeros(1, device="meta")) is None


def test_where_nothing_can_be_kept_they_are_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def without_a_folder(signature: str, *, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(signature, **options)

    monkeypatch.setattr(numba, "njit", without_a_folder)

    @kernels.compiled("float32(float32)")
    def doubled(x: float) -> float:
        return 2 * x

    assert doubled(np.float32(3)) == 6
