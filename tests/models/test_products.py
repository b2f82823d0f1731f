"""`linear` is `torch.nn.functional.linear`, whichever kernel computes it."""

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from kascade.models import products
from kascade.models.products import FEWEST_ROWS, linear, linear_added
from kascade.models.projections import through

SHAPES = [(1, 8, 4), (FEWEST_ROWS - 1, 16, 24), (FEWEST_ROWS, 16, 24), (3 * FEWEST_ROWS, 130, 7)]


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64).float().requires_grad_()


@pytest.mark.parametrize(("rows", "width", "out"), SHAPES)
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients_are_those_of_torch(rows: int, width: int, out: int, biased: bool) -> None:
    x, weight, bias = leaf(rows, width), leaf(out, width), leaf(out) if biased else None
    tensors = [t for t in (x, weight, bias) if t is not None]
    found, expected = linear(x, weight, bias), F.linear(x, weight, bias)
    torch.testing.assert_close(found, expected)
    slope = torch.randn_like(expected)
    for ours, theirs in zip(
        torch.autograd.grad(found, tensors, slope), torch.autograd.grad(expected, tensors, slope), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_what_needs_no_gradient_gets_none() -> None:
    x, weight = leaf(FEWEST_ROWS, 5).detach(), leaf(3, 5)
    linear(x, weight).sum().backward()
    assert x.grad is None and weight.grad is not None
    frozen, inputs = leaf(3, 5).detach(), leaf(FEWEST_ROWS, 5)
    linear(inputs, frozen).sum().backward()
    assert frozen.grad is None and inputs.grad is not None


@pytest.mark.parametrize("shape", [(2, 3, 16), (4, FEWEST_ROWS, 16), (0, 16)])
def test_any_number_of_dimensions_and_no_rows(shape: tuple[int, ...]) -> None:
    x, weight = leaf(*shape), leaf(6, 16)
    product = linear(x, weight)
    torch.testing.assert_close(product, F.linear(x, weight))
    product.sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


@pytest.mark.parametrize("rows", [3, 2 * FEWEST_ROWS])
def test_any_strides(rows: int) -> None:
    """Backward passes hand over transposed views."""
    x, weight = leaf(16, rows).detach().T, leaf(16, 9).detach().T
    torch.testing.assert_close(linear(x, weight), x @ weight.T)
    part = leaf(rows, 64).detach()[:, 16:32]
    torch.testing.assert_close(linear(part, weight), part @ weight.T)


@pytest.mark.parametrize("rows", [3, 2 * FEWEST_ROWS])
def test_added(rows: int) -> None:
    x, weight, to = leaf(rows, 16).detach(), leaf(9, 16).detach(), leaf(rows, 9).detach()
    torch.testing.assert_close(linear_added(x, weight, to), to + x @ weight.T)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_types_stay_what_they_are(dtype: torch.dtype) -> None:
    x, weight = torch.randn(2 * FEWEST_ROWS, 8, dtype=dtype), torch.randn(4, 8, dtype=dtype)
    product = linear(x, weight)
    assert product.dtype == dtype
    torch.testing.assert_close(product, F.linear(x, weight), rtol=0, atol=0)


def test_a_layer_that_is_not_a_plain_one_is_called() -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    x = torch.randn(FEWEST_ROWS, 5)
    plain, doubled = torch.nn.Linear(5, 3), Doubled(5, 3)
    torch.testing.assert_close(through(plain, x), plain(x))
    torch.testing.assert_close(through(doubled, x), doubled(x))
    assert through(torch.nn.Identity(), x) is x


def test_the_same_without_the_wide_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = leaf(2 * FEWEST_ROWS, 16), leaf(9, 16)
    monkeypatch.setattr(products, "_has_wide_kernel", lambda: False)
    product = linear(x, weight)
    assert "AddmmBackward" in type(product.grad_fn).__name__ or "MmBackward" in type(product.grad_fn).__name__
    torch.testing.assert_close(product, F.linear(x, weight), rtol=0, atol=0)


GROWTH = """
import re, torch
from pathlib import Path
from kascade.models.products import linear

def resident_mib():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

torch.set_num_threads(1)
x, weight = torch.randn(1000, 64), torch.randn(64, 64)
for rows in range(700, 1000):
    linear(x[:rows], weight)
before = resident_mib()
for rows in range(400, 700):
    linear(x[:rows], weight)
print(resident_mib() - before)
"""


def test_ever_new_shapes_do_not_fill_the_memory() -> None:
    """Once 300 shapes were seen, the kernels of 300 more would take 180 MiB if those were kept, too."""
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60, done.stdout
