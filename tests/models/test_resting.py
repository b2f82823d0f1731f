"""Frozen models that lie in the host's memory: where their weights are, and that they score as before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toy_cascade import make_model, make_policy
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from kascade.learning.example import Example
from kascade.learning.scoring import ScoreHidden, ScoreLogprobs, score_examples
from kascade.models.adapters import add_adapter, trained_tensors, without_adapter
from kascade.models.batch import TokenBatch
from kascade.models.resting import on_device, rest_in_host
from kascade.recipe.adapter import Adapter
from kascade.recipe.layout import Layout
from kascade.recipe.memory import memory_of
from kascade.recipe.shapes import shape_of
from kascade.stages.teachers import frozen_start

EXAMPLES = [
    Example([2, 5, 6, 3, 7, 8], [False] * 3 + [True] * 3),
    Example([2, 9, 3, 4], [False] * 3 + [True]),
]
HOW = {"micro_batch_tokens": 16, "pad_id": 0}
CPU = torch.device("cpu")  # both host and device: what is brought is a copy
CONFIG: dict[str, Any] = {
    "model_type": "qwen3", "vocab_size": 16_384, "hidden_size": 768, "intermediate_size": 3072,
    "num_hidden_layers": 16, "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64,
    "tie_word_embeddings": False,
}  # fmt: skip


def places(model: PreTrainedModel) -> dict[str, int]:
    return {name: parameter.data_ptr() for name, parameter in model.named_parameters()}


def untied() -> PreTrainedModel:
    return Qwen3ForCausalLM(Qwen3Config(**{**CONFIG, "num_hidden_layers": 2, "vocab_size": 64})).eval()


def test_weights_come_to_the_device_to_score_and_go() -> None:
    seen: list[dict[str, int]] = []

    def score(model: PreTrainedModel, batch: TokenBatch) -> torch.Tensor:
        seen.append(places(model))
        return torch.zeros(len(batch.targets))

    model = rest_in_host(untied().requires_grad_(False), CPU)
    resting = places(model)
    score_examples(model, EXAMPLES, score, **HOW)
    assert len(seen) > 0
    for one in seen:
        stayed = {name for name, place in one.items() if place == resting[name]}
        assert stayed == {"lm_head.weight"}  # which distillation needs all the time
    assert places(model) == resting


def test_scores_are_those_of_a_model_that_stays() -> None:
    model = make_model(1).requires_grad_(False)
    expected = [score_examples(model, EXAMPLES, score, **HOW) for score in (ScoreLogprobs(), ScoreHidden())]
    rest_in_host(model, CPU)
    for _ in range(2):
        found = [score_examples(model, EXAMPLES, score, **HOW) for score in (ScoreLogprobs(), ScoreHidden())]
        for mine, own in zip(found, expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, own, strict=True))


def test_what_the_policy_computes_with_stays() -> None:
    policy = make_policy()
    add_adapter(policy.model, Adapter(rank=2), 0)
    reference = frozen_start(policy)
    rest_in_host(reference, CPU, held=list(policy.model.parameters()))  # type: ignore[arg-type]
    base = {id(p) for p in without_adapter(policy.model).parameters()}
    moved = {id(tensor) for tensor, _ in reference._kascade_rests.host}  # type: ignore[union-attr]
    assert not moved & (base | {id(t) for t in trained_tensors(policy.model).values()})
    own = {id(t) for t in trained_tensors(reference).values()}  # type: ignore[arg-type]
    assert own <= moved and len(own) == len(trained_tensors(policy.model))


def test_a_failed_scoring_leaves_the_weights_in_the_host() -> None:
    model = rest_in_host(untied().requires_grad_(False), CPU)
    resting = places(model)
    with pytest.raises(ZeroDivisionError), on_device(model):
        assert places(model) != resting
        _ = 1 / 0
    assert places(model) == resting
    with on_device(untied()) as nothing:  # a model that never rested
        assert nothing is None


def test_the_plan_counts_one_resting_teacher_at_most() -> None:
    shape = shape_of(CONFIG)
    assert shape is not None
    layout = Layout(precision="bf16", whole_teachers=5, tokens=1024)
    there = memory_of(shape, layout)["teachers"].expected
    resting = Layout(precision="bf16", whole_teachers=5, tokens=1024, teachers_rest=True)
    heads = 5 * 16_384 * 768 * 2
    assert there == pytest.approx(5 * shape.size * 2)
    assert heads <= memory_of(shape, resting)["teachers"].expected <= heads + shape.size * 2
