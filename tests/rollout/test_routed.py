"""Sampling with recorded experts: the same answers, and the experts that a forward of the same model uses."""

from __future__ import annotations

import pytest
import torch
from test_speculative import dense, hybrid

from kascade.models.routing import record_routing
from kascade.rollout.decoder import CacheDecoder
from kascade.rollout.native import NativeEngine
from kascade.rollout.routed import RoutedEngine
from kascade.rollout.types import Prompt, SamplingParams

PROMPTS = [Prompt((5, 6, 7, 8), 3, 1), Prompt((4, 9), 2, 2, greedy=True), Prompt((9, 9, 9, 9), 2, 3)]
ENDS = (2, 3, 4)


def test_answers_are_the_native_engines_with_the_experts_of_every_token() -> None:
    model = hybrid(pattern="MEM*E")
    engine = RoutedEngine(model, end_ids=ENDS, max_batch_rows=5)
    engine.load_weights(4)
    ours = engine.sample(PROMPTS, SamplingParams(10))
    native = NativeEngine(model, end_ids=ENDS, decoder=CacheDecoder(model)).sample(
        PROMPTS, SamplingParams(10)
    )
    for prompt, mine, theirs in zip(PROMPTS, ours, native, strict=True):
        assert [s.token_ids for s in mine] == [s.token_ids for s in theirs]
        for sample in mine:
            ids = torch.tensor([[*prompt.token_ids, *sample.token_ids]])
            with record_routing(model) as recorder:
                model.base_model(input_ids=ids, use_cache=False)
            expected = recorder.take()[:-1]  # the last token's experts were never needed
            assert sample.routing is not None and sample.weights_version == 4
            assert torch.equal(sample.routing.sort(-1).values, expected.sort(-1).values)
    assert {s.finish_reason for samples in ours for s in samples} == {"stop", "length"}
    assert [len(group) for group in ours] == [3, 3, 2]


def test_what_has_no_experts_or_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="no router"):
        RoutedEngine(dense(), end_ids=[]).sample(PROMPTS, SamplingParams(2))
    with pytest.raises(ValueError, match="no tokens"):
        RoutedEngine(hybrid(), end_ids=[]).sample([Prompt((), 1, 0)], SamplingParams(2))
