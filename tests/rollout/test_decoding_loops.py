"""The compiled loops against PyTorch's own arithmetic."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.models.loops import array
from kascade.rollout import sampling
from kascade.rollout.kernels import attention_of_width, norm_and_rotate
from kascade.rollout.sampling import draw
from kascade.rollout.types import SamplingParams


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 5),
    groups=st.sampled_from([(1, 1), (2, 2), (1, 4), (2, 3)]),
    width=st.sampled_from([6, 16, 32, 80, 128]),
    now=st.integers(0, 70),
)
def test_attention_is_one_softmax_over_what_a_row_has_stored(
    seed: int, rows: int, groups: tuple[int, int], width: int, now: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    kv_heads, group = groups
    queries = kv_heads * group
    heads = torch.randn(rows, queries + 2 * kv_heads, width, generator=generator)
    keys, values = torch.randn(2, rows + 1, kv_heads, now + 3, width, generator=generator)
    keys[:, :, now + 1 :] = torch.nan  # nothing behind the newest slot may be read
    values[:, :, now + 1 :] = torch.nan
    first = torch.randint(0, now + 1, (rows,), generator=generator)
    out, mass = torch.empty(rows, queries, width), torch.empty(rows, queries)
    given_ = [array(x) for x in (heads, keys, values, first)]
    attention_of_width(width)(*given_, now, array(out), array(mass))

    query, key, value = heads.split([queries, kv_heads, kv_heads], 1)
    assert torch.equal(keys[:rows, :, now], key)
    assert torch.equal(values[:rows, :, now], value)
    seen = [x[:rows, :, : now + 1].repeat_interleave(group, 1).double() for x in (keys, values)]
    scores = torch.einsum("rhd,rhsd->rhs", query.double(), seen[0])
    scores.masked_fill_((torch.arange(now + 1) < first[:, None])[:, None], -torch.inf)
    expected = torch.einsum("rhs,rhsd->rhd", scores.softmax(-1), seen[1])
    torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(mass.double(), scores.logsumexp(-1), atol=2e-5, rtol=2e-6)


def test_heads_are_normed_and_turned_and_values_are_left() -> None:
    heads, norms = torch.randn(7, 5, 8), torch.randn(4, 8)
    angles, positions = torch.randn(20, 16), torch.randint(0, 20, (7,))
    before = heads.clone()
    norm_and_rotate(*map(array, (heads, norms, angles, positions)), 1e-6)
    x = torch.nn.functional.rms_norm(before[:, :4], (8,), eps=1e-6) * norms
    cos, sin = angles[positions][:, None].chunk(2, -1)
    torch.testing.assert_close(heads[:, :4], x * cos + x.roll(4, -1) * sin)
    assert torch.equal(heads[:, 4], before[:, 4])


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    vocabulary=st.sampled_from([1, 2, 63, 64, 65, 130, 1000]),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    top_k=st.sampled_from([None, 1, 5]),
    top_p=st.sampled_from([1.0, 0.5]),
)
def test_the_same_tokens_are_drawn_as_by_pytorch(
    seed: int, vocabulary: int, temperature: float, top_k: int | None, top_p: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(40, vocabulary, generator=generator) * 5
    uniform = torch.rand(40, generator=generator, dtype=torch.float64)
    uniform[:2] = torch.tensor([0.0, 1 - 2.0**-53])
    greedy = torch.rand(40, generator=generator) < 0.2
    params = SamplingParams(1, temperature=temperature, top_k=top_k, top_p=top_p)
    ours = draw(logits, uniform, params, greedy=greedy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "kernels_for", lambda like: None)
        theirs = draw(logits, uniform, params, greedy=greedy)
    # A point within rounding of the border between two tokens may fall to either.
    same = ours[0] == theirs[0]
    assert same.float().mean() >= 0.95
    assert same[greedy].all()
    torch.testing.assert_close(ours[1][same], theirs[1][same], atol=2e-6, rtol=1e-5)


def test_logits_that_are_no_numbers_end_in_some_token_of_the_vocabulary() -> None:
    logits = torch.full((3, 70), torch.nan)
    logits[1, :10], logits[2] = 1.0, -torch.inf
    uniform = torch.tensor([0.5, 0.999, 0.0], dtype=torch.float64)
    for temperature in (0.0, 1.0):
        tokens, _ = draw(logits, uniform, SamplingParams(1, temperature=temperature))
        assert ((tokens >= 0) & (tokens < 70)).all()


def test_other_layouts_and_types_are_refused() -> None:
    good = [np.zeros((2, 4, 8), np.float32), np.zeros((3, 8), np.float32), np.zeros((5, 16), np.float32)]
    positions = np.zeros(2, np.int64)
    norm_and_rotate(*good, positions, 1e-6)
    for wrong in (good[0].astype(np.float64), np.asfortranarray(good[0]), good[0][:, :, ::2]):
        with pytest.raises(TypeError):
            norm_and_rotate(wrong, *good[1:], positions, 1e-6)
