"""What must hold of every layout, whatever the model: more processes and less kept never need more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kascade.recipe.layout import Layout, Range
from kascade.recipe.memory import LEVELS, memory_of, total_of
from kascade.recipe.memory_sampling import sampler_memory
from kascade.recipe.model_config import known_models, model_shape_of
from kascade.recipe.shapes import ModelShape, shape_of

SPARSE = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 8, "vocab_size": 151_936,
    "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
    "num_experts_per_tok": 8, "moe_intermediate_size": 768, "intermediate_size": 6144,
}  # fmt: skip
MODELS: dict[str, ModelShape | None] = {
    **{hub: model_shape_of(hub) for hub in known_models()},
    "builtin": model_shape_of("builtin://mini-nemotron-h"),
    "sparse": shape_of(SPARSE),
}
LAYOUTS = st.builds(
    Layout,
    precision=st.sampled_from(["bf16", "fp32"]),
    device=st.sampled_from(["cuda", "cpu"]),
    shard=st.sampled_from([1, 2, 3, 8, 16]),
    activations=st.sampled_from(["keep", "recompute", "offload"]),
    tokens=st.sampled_from([64, 1024, 8192, 65_536, 262_144]),
    adapter=st.sampled_from([None, (8, None), (64, ("q_proj", "v_proj"))]),
    whole_teachers=st.integers(0, 3),
    adapter_teachers=st.integers(0, 3),
    teachers_rest=st.booleans(),
    samples=st.sampled_from([None, (1, 1024), (256, 49_152)]),
    engine_devices=st.sampled_from([0, 1, 2]),
    beside=st.sampled_from([0, 10**9]),
    full_vocabulary=st.booleans(),
)


def total(name: str, layout: Layout, **changes: Any) -> Range:
    shape = MODELS[name]
    assert shape is not None
    return total_of(memory_of(shape, replace(layout, **changes)))


def at_most(less: Range, more: Range) -> bool:
    """Up to a millionth: short last parts of shards."""
    return all(getattr(less, level) <= getattr(more, level) * (1 + 1e-6) for level in LEVELS)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(layout=LAYOUTS)
def test_less_is_never_more(name: str, layout: Layout) -> None:
    here = total(name, layout)
    assert here.low <= here.expected <= here.high
    apart = replace(layout, trunk=False)  # with and without Kascade's own forward are two different programs
    many = max(2, layout.shard)
    assert at_most(
        total(name, apart, shard=2 * many, samples=None), total(name, apart, shard=many, samples=None)
    )
    kept, again, away = (total(name, apart, activations=a) for a in ("keep", "recompute", "offload"))
    assert at_most(again, kept) and at_most(away, again)
    shape = MODELS[name]
    if shape is not None and shape.size > 10**9 and layout.tokens <= 8192:  # else what rows keep is more
        assert at_most(total(name, apart, adapter=(8, None)), total(name, apart, adapter=None))
    assert at_most(total(name, layout, teachers_rest=True), total(name, layout, teachers_rest=False))
    assert at_most(total(name, layout, whole_teachers=0), here)
    assert at_most(total(name, layout, adapter_teachers=0), here)
    assert at_most(total(name, layout, tokens=layout.tokens // 2), here)
    assert at_most(total(name, layout, samples=None, engine_devices=0, beside=0), here)
    assert at_most(total(name, layout, full_vocabulary=False), total(name, layout, full_vocabulary=True))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(layout=LAYOUTS)
def test_a_sampler_needs_no_less_for_more(name: str, layout: Layout) -> None:
    shape = MODELS[name]
    assert shape is not None
    here = total_of(sampler_memory(shape, layout))
    assert here.low <= here.expected <= here.high
    assert at_most(total_of(sampler_memory(shape, replace(layout, samples=None, engine_devices=0))), here)
    assert here.expected * 2 == pytest.approx(total_of(sampler_memory(shape, layout, 2)).expected)
    spread = replace(layout, engine_devices=2 * layout.engine_devices)
    assert at_most(total_of(sampler_memory(shape, spread)), here)
