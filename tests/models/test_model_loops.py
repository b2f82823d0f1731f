"""The compiled loops of models against PyTorch's own arithmetic."""

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

from kascade.models import kernels
from kascade.models.loops import array, kernels_for
from kascade.models.norms import rms_norm, rotated_heads


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
    kernels.rms_norm(array(x), array(weight), 1e-6, array(out), array(torch.empty(9)))
    torch.testing.assert_close(out, torch.nn.functional.rms_norm(x, (40,), weight, 1e-6))


def gradients(function: Callable[..., Tensor], inputs: Sequence[Tensor], grad: Tensor) -> list[Tensor]:
    """The output and the gradients of what `function` makes of copies of `inputs`, as float32."""
    own = [x.detach().to(grad.dtype).requires_grad_() for x in inputs]
    out = function(*own)
    out.backward(grad)
    return [x.float() for x in (out.detach(), *(x.grad for x in own if x.grad is not None))]


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (64, 96), (333, 40)])
def test_the_norms_of_training_are_autograds_of_the_formula(rows: int, width: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight, grad = (torch.randn(s, generator=generator) for s in ((rows, width), (width,), (rows, width)))
    plain = gradients(rms_norm_by_torch, (x, weight), grad.double())
    ours = gradients(lambda x, w: rms_norm(x, w, 1e-6), (x, weight), grad)
    for got, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=2e-5)


def rms_norm_by_torch(x: Tensor, weight: Tensor) -> Tensor:
    return torch.nn.functional.rms_norm(x, weight.shape, weight, 1e-6)


@pytest.mark.parametrize(("rows", "heads", "width"), [(1, (1, 1), 2), (70, (4, 2), 32), (129, (3, 1), 24)])
def test_normed_and_rotated_heads_are_autograds_of_the_formula(
    rows: int, heads: tuple[int, int], width: int
) -> None:
    generator = torch.Generator().manual_seed(rows)
    whole = sum(heads) + heads[1]
    x, grad = (torch.randn(rows, whole, width, generator=generator) for _ in range(2))
    weights = [torch.randn(width, generator=generator) for _ in heads]
    angle = torch.randn(rows, 1, width // 2, generator=generator).double()
    cos, sin = angle.cos().repeat(1, 1, 2), torch.cat([-angle.sin(), angle.sin()], -1)

    def plain(x: Tensor, q: Tensor, k: Tensor) -> Tensor:
        query, key, value = x.split([*heads, heads[1]], 1)
        query, key = rms_norm_by_torch(query, q), rms_norm_by_torch(key, k)
        return torch.cat([*(y * cos + y.roll(width // 2, -1) * sin for y in (query, key)), value], 1)

    def ours(x: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return torch.cat(rotated_heads(x, (q, k), heads, 1e-6, (cos.float(), sin.float())), 1)

    pairs = zip(
        gradients(ours, (x, *weights), grad), gradients(plain, (x, *weights), grad.double()), strict=True
    )
    for got, expected in pairs:
        torch.testing.assert_close(got, expected, atol=3e-5, rtol=3e-5)


def test_a_row_that_is_no_number_stays_so_and_harms_no_other() -> None:
    """The watch over losses looks for it."""
    x, weight = torch.randn(4, 3, 8), torch.ones(8)
    x[2] = torch.nan
    angles = torch.ones(4, 1, 8), torch.zeros(4, 1, 8)
    for out in (rms_norm(x, weight, 1e-6), *rotated_heads(x, (weight,), (2,), 1e-6, angles)):
        assert out[2].isnan().all()
        assert out[[0, 1, 3]].isfinite().all()


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
