"""The contract between the vLLM adapter and vLLM, held against a small stand-in for its `LLM`.

The stand-in answers with tokens that follow from prompt and seed, so that what the adapter asks for and
makes of it can be checked; it does not show that vLLM itself behaves so.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kascade.cluster.ray_rollouts import RolloutActor, weights_of
from kascade.data.chat import ChatFormat
from kascade.errors import TrainingStopped, UserError
from kascade.models.checksum import weights_checksum
from kascade.recipe.schema import Rollout
from kascade.rollout.engines import make_engine
from kascade.rollout.types import Prompt, SamplingParams
from kascade.rollout.vllm import VLLMEngine, VLLMSettings
from kascade.stages.job import Policy

sys.path.append(str(Path(__file__).resolve().parents[1] / "stages"))

from toy_cascade import make_model, make_tokenizer

SETTINGS = VLLMSettings(1, 0.5, None, "auto")
END, THINK_END = 1, [8, 9]
PROMPTS = [Prompt((5, 6, 7), 3, seed=11), Prompt((5, 6), 2, seed=12)]


@dataclass
class FakeParams:
    """vllm.SamplingParams, as far as it is used; another name is an error, as there."""

    n: int
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop_token_ids: list[int]
    stop: list[str] | None
    include_stop_str_in_output: bool
    detokenize: bool
    ignore_eos: bool
    logprobs: int


@dataclass
class Logprob:
    logprob: float


@dataclass
class Completion:
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]]
    finish_reason: str


@dataclass
class RequestOutput:
    outputs: list[Completion]


@dataclass
class FakeLLM:
    model: str
    tensor_parallel_size: int
    gpu_memory_utilization: float
    max_model_len: int | None
    dtype: str
    logprobs_mode: str
    enable_prefix_caching: bool
    seed: int
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def generate(
        self, prompts: Sequence[dict[str, list[int]]], sampling_params: Sequence[FakeParams], use_tqdm: bool
    ) -> list[RequestOutput]:
        self.calls.append(("generate", list(prompts), list(sampling_params)))
        return [
            RequestOutput([self.complete(p["prompt_token_ids"], how)])
            for p, how in zip(prompts, sampling_params, strict=True)
        ]

    def complete(self, ids: list[int], how: FakeParams) -> Completion:
        """Tokens 20 ... 29 by seed and place; greedy ones 30; the end token after the 12th of all."""
        drawn: list[int] = []
        while len(drawn) < how.max_tokens and not (drawn and drawn[-1] in how.stop_token_ids):
            place = len(ids) + len(drawn)
            token = 30 if how.temperature == 0 else 20 + (how.seed + place) % 10
            drawn.append(END if place == 12 else token)
        reason = "stop" if drawn[-1] in how.stop_token_ids else "length"
        return Completion(drawn, [{token: Logprob(-token / 10)} for token in drawn], reason)

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        self.calls.append((method, kwargs))

    def reset_prefix_cache(self) -> None:
        self.calls.append(("reset_prefix_cache",))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeLLM]:
    made: list[FakeLLM] = []
    module = ModuleType("vllm")

    def make(**settings: Any) -> FakeLLM:
        made.append(FakeLLM(**settings))
        return made[-1]

    module.LLM, module.SamplingParams = make, FakeParams  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    return made


def engine_in(folder: Path) -> VLLMEngine:
    def save(target: Path) -> None:
        target.mkdir(exist_ok=True)
        (target / "saved").write_text(str(len(list(target.iterdir()))))

    engine = VLLMEngine(
        folder, save, checksum=lambda: 5, settings=SETTINGS, end_ids=[END], think_end_ids=THINK_END
    )
    engine.load_weights(0)
    return engine


def test_tokens_and_processed_logprobs_come_back_as_they_are(tmp_path: Path, made: list[FakeLLM]) -> None:
    drawn = engine_in(tmp_path / "w").sample(PROMPTS, SamplingParams(20, 0.7, top_p=0.9, top_k=5))
    assert made[0].logprobs_mode == "processed_logprobs" and made[0].enable_prefix_caching
    _, requests, how = made[0].calls[-1]
    assert [r["prompt_token_ids"] for r in requests] == [[5, 6, 7]] * 3 + [[5, 6]] * 2
    assert {(h.n, h.temperature, h.top_p, h.top_k, h.logprobs) for h in how} == {(1, 0.7, 0.9, 5, 0)}
    assert len({h.seed for h in how}) == 5 and all(0 <= h.seed < 2**63 for h in how)
    assert [len(group) for group in drawn] == [3, 2]
    for group, length in zip(drawn, (10, 11), strict=True):  # up to place 12, the end token included
        for sample in group:
            assert (len(sample.token_ids), sample.token_ids[-1], sample.finish_reason) == (
                length,
                END,
                "stop",
            )
            assert sample.logprobs == tuple(-token / 10 for token in sample.token_ids)
    cut = engine_in(tmp_path / "w").sample(PROMPTS, SamplingParams(4))[0][0]
    assert (len(cut.token_ids), cut.finish_reason) == (4, "length")


def test_a_greedy_answer_comes_first_and_order_changes_nothing(tmp_path: Path, made: list[FakeLLM]) -> None:
    engine, params = engine_in(tmp_path / "w"), SamplingParams(5, 0.7, top_p=0.5)
    plain = engine.sample(PROMPTS, params)
    both = engine.sample([replace(prompt, greedy=True) for prompt in PROMPTS], params)
    assert [group[0].token_ids for group in both] == [(30,) * 5] * 2
    assert [group[1:] for group in both] == plain
    assert engine.sample(PROMPTS[::-1], params)[::-1] == plain
    assert (made[0].calls[1][2][0].temperature, made[0].calls[1][2][0].top_p) == (0.0, 1.0)


def test_new_weights_go_through_the_folder_and_are_stamped(tmp_path: Path, made: list[FakeLLM]) -> None:
    engine = engine_in(tmp_path / "w")
    assert (tmp_path / "w" / "saved").exists() and len(made) == 1
    engine.load_weights(7)
    assert made[0].calls == [
        ("reload_weights", {"weights_path": str(tmp_path / "w")}),
        ("reset_prefix_cache",),
    ]
    assert {s.weights_version for group in engine.sample(PROMPTS, SamplingParams(3)) for s in group} == {7}


def test_what_is_handed_over_has_one_checksum(tmp_path: Path, made: list[FakeLLM]) -> None:
    sums = [7, 7, 8, 9]  # before and after each writing
    engine = VLLMEngine(
        tmp_path, lambda _: None, checksum=lambda: sums.pop(0), settings=SETTINGS, end_ids=[END]
    )
    assert engine.weights_checksum == 0
    engine.load_weights(1)
    assert engine.weights_checksum == 7
    with pytest.raises(TrainingStopped, match="version 2 changed while"):
        engine.load_weights(2)
    assert engine.weights_checksum == 7
    assert not made[0].calls  # vLLM was not told to read them


def test_a_sampler_with_vllm_proves_its_weights_as_a_native_one_does(made: list[FakeLLM]) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    part = Rollout(engine="vllm")
    make = partial(make_engine, tokenizer=tokenizer, chat=ChatFormat(tokenizer), part=part)
    actor = RolloutActor(copy.deepcopy(model), make, threads=1)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    weights, expected = weights_of(model), weights_checksum(model)
    assert actor.load_weights(weights, 4, expected) == expected
    written = Path(made[0].model) / "model.safetensors"
    name, parameter = next(iter(model.named_parameters()))
    assert torch.equal(load_file(written)[name], parameter)
    weights[name].view(-1)[0] += 1e-6
    with pytest.raises(TrainingStopped, match="a sampler holds"):
        actor.load_weights(weights, 5, expected)
    with pytest.raises(TrainingStopped, match="holds weights None, 4 are asked for"):
        actor.sample(4, PROMPTS, SamplingParams(3))

    policy = Policy.around(model, tokenizer, ChatFormat(tokenizer), part)
    policy.check_weights()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6
    with pytest.raises(TrainingStopped, match="changed without a sync"):
        policy.check_weights()


def test_a_thinking_budget_closes_the_block_in_a_second_request(tmp_path: Path, made: list[FakeLLM]) -> None:
    engine = engine_in(tmp_path / "w")
    prompts = [replace(PROMPTS[0], thinking=True), PROMPTS[1]]
    held, free = engine.sample(prompts, SamplingParams(20, thinking_budget=3))
    for sample in held:
        assert sample.token_ids[3:5] == tuple(THINK_END) and sample.token_ids[-1] == END
        assert sample.drawn == (True,) * 3 + (False,) * 2 + (True,) * 5
        own = [t for t, drawn in zip(sample.token_ids, sample.scored, strict=True) if drawn]
        assert sample.logprobs == tuple(-token / 10 for token in own)
    assert all(sample.drawn is None for sample in free)
    last = made[0].calls[-1]
    assert all(r["prompt_token_ids"][-2:] == THINK_END for r in last[1]) and last[2][0].max_tokens == 15


def test_what_vllm_cannot_do_is_refused(
    tmp_path: Path, made: list[FakeLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_in(tmp_path / "w")
    with pytest.raises(UserError, match="single tokens"):
        engine.sample(PROMPTS, SamplingParams(3, stop_ids=((4, 5),)))
    with pytest.raises(ValueError, match="no tokens"):
        engine.sample([Prompt((), 1, 0)], SamplingParams(3))
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"vllm is not here") as caught:
        VLLMEngine(tmp_path, lambda _: None, checksum=lambda: 5, settings=SETTINGS, end_ids=[END])
    assert "engine: native" in str(caught.value.faults[0].remedy)
