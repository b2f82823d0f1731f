import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.rollout.sampling import draw, restrict, stream_key, uniforms
from kascade.rollout.types import SamplingParams


def test_uniforms_are_splitmix64() -> None:
    """First outputs of the generator seeded with 1234567, as in its authors' reference implementation."""
    expected = np.array([6457827717110365317, 3203168211198807973, 9817491932198370423], dtype=np.uint64)
    keys = np.full(3, 1234567, dtype=np.uint64)
    drawn = uniforms(keys, np.arange(3, dtype=np.uint64))
    np.testing.assert_array_equal(drawn, (expected >> np.uint64(11)).astype(float) * 2.0**-53)


def test_streams_are_uniform_and_apart() -> None:
    keys = np.array([stream_key(seed, sample) for seed in range(50) for sample in range(20)], dtype=np.uint64)
    assert len(set(keys.tolist())) == 1000
    points = np.concatenate([uniforms(keys, np.full(1000, p, dtype=np.uint64)) for p in range(20)])
    histogram = np.histogram(points, bins=20, range=(0, 1))[0]
    assert abs(histogram - 1000).max() < 5 * 1000**0.5


def test_frequencies_follow_the_distribution() -> None:
    logits = torch.tensor([2.0, 0.0, 1.0, -torch.inf])
    points = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:-1]
    tokens, logprobs = draw(logits.expand(len(points), -1), points, SamplingParams(1, temperature=0.5))
    expected = (logits / 0.5).softmax(-1)
    frequencies = tokens.bincount(minlength=4) / len(points)
    torch.testing.assert_close(frequencies, expected, atol=2e-4, rtol=0)
    torch.testing.assert_close(logprobs, expected.log()[tokens])


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (None, 1.0, [0, 1, 2, 3]),
        (2, 1.0, [1, 3]),
        (None, 0.6, [1, 3]),
        (None, 0.01, [1]),
        (3, 0.99, [1, 2, 3]),
    ],
)
def test_truncation_keeps_the_likeliest_and_renormalises(
    top_k: int | None, top_p: float, kept: list[int]
) -> None:
    logits = torch.tensor([[0.05, 0.5, 0.15, 0.3]]).log()
    restricted = restrict(logits, top_k, top_p)
    assert restricted.isfinite().nonzero()[:, 1].tolist() == kept
    params = SamplingParams(1, top_k=top_k, top_p=top_p)
    tokens, logprobs = draw(logits, torch.tensor([0.999999], dtype=torch.float64), params)
    weight = logits.exp()[0]
    assert logprobs.item() == pytest.approx((weight[tokens] / weight[kept].sum()).log().item(), abs=1e-5)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 1, exclude_max=True), st.integers(1, 8), st.floats(0.05, 1))
def test_a_drawn_token_is_always_possible(seed: int, point: float, top_k: int, top_p: float) -> None:
    logits = torch.randn(1, 8, generator=torch.Generator().manual_seed(seed)) * 4
    params = SamplingParams(1, temperature=0.8, top_k=top_k, top_p=top_p)
    token, logprob = draw(logits, torch.tensor([point], dtype=torch.float64), params)
    assert restrict(logits / 0.8, top_k, top_p)[0, token].isfinite()
    assert logprob.item() <= 0
