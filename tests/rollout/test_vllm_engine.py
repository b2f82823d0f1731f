"""The contract between the vLLM adapter and vLLM, held against a small stand-in for its `LLM`.

The stand-in answers with tokens that follow from prompt and seed, so that what the adapter asks for and
makes of it can be checked; it does not show that vLLM itself behaves so.
"""

from __future__ import annotations

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
from toy_cascade import make_model, make_tokenizer

from kascade.data.chat import ChatFormat
from kascade.errors import TrainingStopped, UserError
from kascade.models.adapters import add_adapter, trained_tensors
from kascade.models.checksum import weights_checksum
from kascade.models.load import load_model
from kascade.recipe.adapter import Adapter
from kascade.recipe.schema import ModelPart, Rollout
from kascade.recipe.vllm import Canary
from kascade.rollout.canary import Watch, logprobs_of
from kascade.rollout.engines import make_engine
from kascade.rollout.handover import Handover, ModelSource, Sampler
from kascade.rollout.policy import Policy
from kascade.rollout.types import Prompt, SamplingParams
from kascade.rollout.vllm import VLLMEngine
from kascade.rollout.vllm_local import LocalVLLM, VLLMSettings
from kascade.rollout.weight_sync import WeightSender, parts_of

SETTINGS = VLLMSettings(1, 0.5, None, "auto")
END, THINK_END = 1, [8, 9]
PROMPTS = [Prompt((5, 6, 7), 3, seed=11), Prompt((5, 6), 2, seed=12)]


@dataclass
class FakeParams:
    """vllm.SamplingParams, as far as it is used; another name is an error, as there."""

    max_tokens: int
    detokenize: bool
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop_token_ids: list[int] = field(default_factory=list)
    stop: list[str] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None


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
    prompt_logprobs: list[Any] = field(default_factory=list)


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
        if sampling_params[0].prompt_logprobs is not None:
            return [self.score(p["prompt_token_ids"]) for p in prompts]
        self.calls.append(("generate", list(prompts), list(sampling_params)))
        return [
            RequestOutput([self.complete(p["prompt_token_ids"], how)])
            for p, how in zip(prompts, sampling_params, strict=True)
        ]

    def score(self, ids: list[int]) -> RequestOutput:
        """As the model in the folder does, where there is one."""
        (scores,) = logprobs_of(load_model(Path(self.model)), [ids])
        steps = [{token: Logprob(float(score))} for token, score in zip(ids[1:], scores, strict=True)]
        return RequestOutput([], [None, *steps])

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


@dataclass
class FakeSource:
    """Weights that are a number. checksums: what is told, one after the other; the last for ever."""

    checksums: list[int]

    def checksum(self) -> int:
        return self.checksums.pop(0) if len(self.checksums) > 1 else self.checksums[0]

    def write(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "saved").write_text(str(len(list(folder.iterdir()))))

    def write_whole(self, folder: Path) -> None:
        self.write(folder)

    def computes_in(self) -> str:
        return "float32"

    def send(self, sender: WeightSender) -> None:
        raise AssertionError("there is no server")

    def logprobs_of(self, rows: Any) -> list[torch.Tensor]:
        return [torch.zeros(len(row) - 1) for row in rows]


def engine_in(folder: Path, *checksums: int, watch: Watch | None = None) -> VLLMEngine:
    source = FakeSource(list(checksums or (5,)))
    vllm = LocalVLLM(folder, source.write, source.computes_in(), SETTINGS)
    return VLLMEngine(vllm, source, watch=watch, end_ids=[END], think_end_ids=THINK_END)


def ready_engine(folder: Path) -> VLLMEngine:
    engine = engine_in(folder)
    engine.load_weights(0)
    return engine


def test_tokens_and_processed_logprobs_come_back_as_they_are(tmp_path: Path, made: list[FakeLLM]) -> None:
    drawn = ready_engine(tmp_path / "w").sample(PROMPTS, SamplingParams(20, 0.7, top_p=0.9, top_k=5))
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
    cut = ready_engine(tmp_path / "w").sample(PROMPTS, SamplingParams(4))[0][0]
    assert (len(cut.token_ids), cut.finish_reason) == (4, "length")


def test_a_greedy_answer_comes_first_and_order_changes_nothing(tmp_path: Path, made: list[FakeLLM]) -> None:
    engine, params = ready_engine(tmp_path / "w"), SamplingParams(5, 0.7, top_p=0.5)
    plain = engine.sample(PROMPTS, params)
    both = engine.sample([replace(prompt, greedy=True) for prompt in PROMPTS], params)
    assert [group[0].token_ids for group in both] == [(30,) * 5] * 2
    assert [group[1:] for group in both] == plain
    assert engine.sample(PROMPTS[::-1], params)[::-1] == plain
    assert (made[0].calls[1][2][0].temperature, made[0].calls[1][2][0].top_p) == (0.0, 1.0)


def test_new_weights_go_through_the_folder_and_are_stamped(tmp_path: Path, made: list[FakeLLM]) -> None:
    engine = ready_engine(tmp_path / "w")
    assert (tmp_path / "w" / "saved").exists() and len(made) == 1
    engine.load_weights(7)
    assert made[0].calls == [
        ("reload_weights", {"weights_path": str(tmp_path / "w")}),
        ("reset_prefix_cache",),
    ]
    assert {s.weights_version for group in engine.sample(PROMPTS, SamplingParams(3)) for s in group} == {7}


def test_what_is_handed_over_has_one_checksum(tmp_path: Path, made: list[FakeLLM]) -> None:
    engine = engine_in(tmp_path / "w", 7, 7, 8, 9)  # before and after each writing
    assert engine.weights_checksum == 0
    engine.load_weights(1)
    assert engine.weights_checksum == 7
    with pytest.raises(TrainingStopped, match="version 2 changed while"):
        engine.load_weights(2)
    assert engine.weights_checksum == 7
    assert not made[0].calls  # vLLM was not told to read them


def test_a_sampler_with_vllm_proves_its_weights_as_a_native_one_does(
    made: list[FakeLLM], tmp_path: Path
) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    part = Rollout(engine="vllm")
    make = partial(make_engine, tokenizer=tokenizer, chat=ChatFormat(tokenizer), part=part)
    source = ModelSource(model, tokenizer)
    source.write(tmp_path / "start")
    sampler = Sampler(tmp_path / "start", None, ModelPart(source="x"), make)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    folder, expected = Handover(source, tmp_path, ModelPart(source="x")).write(4)
    assert sampler.load_weights(folder, 4, expected) == expected
    written = Path(made[0].model) / "model.safetensors"
    name, parameter = next(iter(model.named_parameters()))
    assert torch.equal(load_file(written)[name], parameter)
    with pytest.raises(TrainingStopped, match="a sampler holds"):
        sampler.load_weights(folder, 5, expected + 1)
    with pytest.raises(TrainingStopped, match="holds weights None, 4 are asked for"):
        sampler.sample(4, PROMPTS, SamplingParams(3))

    policy = Policy.around(model, tokenizer, ChatFormat(tokenizer), part)
    policy.check_weights()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6
    with pytest.raises(TrainingStopped, match="changed without a sync"):
        policy.check_weights()


def test_vllm_reads_a_whole_model_where_an_adapter_is_trained(made: list[FakeLLM], tmp_path: Path) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    base = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    add_adapter(model, Adapter(rank=2), 0)
    with torch.no_grad():
        for tensor in trained_tensors(model).values():
            tensor.add_(0.1)
    policy = Policy.around(model, tokenizer, ChatFormat(tokenizer), Rollout(engine="vllm"))
    written = load_file(Path(made[0].model) / "model.safetensors")
    assert not any("lora" in name for name in written)
    changed = [name for name, tensor in written.items() if not torch.equal(tensor, base[name])]
    assert changed and set(changed) < set(base)
    assert policy.engine.weights_checksum == weights_checksum(model)


def test_a_thinking_budget_closes_the_block_in_a_second_request(tmp_path: Path, made: list[FakeLLM]) -> None:
    engine = ready_engine(tmp_path / "w")
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
    engine = ready_engine(tmp_path / "w")
    with pytest.raises(UserError, match="single tokens"):
        engine.sample(PROMPTS, SamplingParams(3, stop_ids=((4, 5),)))
    with pytest.raises(ValueError, match="no tokens"):
        engine.sample([Prompt((), 1, 0)], SamplingParams(3))
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"vllm is not here") as caught:
        engine_in(tmp_path)
    assert "engine: native" in str(caught.value.faults[0].remedy)


def test_the_canary_stops_a_run_whose_sampler_computes_something_else(
    made: list[FakeLLM], tmp_path: Path
) -> None:
    model, tokenizer = make_model(), make_tokenizer()
    part = Rollout(engine="vllm")
    policy = Policy.around(model, tokenizer, ChatFormat(tokenizer), part)
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    policy.sync(1)  # what arrives is scored alike
    made[0].model = str(tmp_path / "old")
    make_model().save_pretrained(made[0].model)
    tokenizer.save_pretrained(made[0].model)  # from now on vLLM stays with weights of its own
    with pytest.raises(TrainingStopped, match=r"version 2: .* 252 tokens .* nats apart .* To do: "):
        policy.sync(2)
    with pytest.raises(ValueError, match="load_weights comes first"):
        policy.engine.sample(PROMPTS, SamplingParams(3))


def test_the_canary_sees_a_hand_over_that_does_nothing_before_the_gap_is_wide(
    made: list[FakeLLM], tmp_path: Path
) -> None:
    """One update at a rate of RL moves scores by a thousandth of the bound."""
    model, tokenizer = make_model(), make_tokenizer()
    policy = Policy.around(model, tokenizer, ChatFormat(tokenizer), Rollout(engine="vllm"))
    policy.sync(1)  # a step without an update: both sides score as before
    made[0].model = str(tmp_path / "old")
    make_model().save_pretrained(made[0].model)
    tokenizer.save_pretrained(made[0].model)  # from now on vLLM stays with weights of its own
    policy.sync(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(parameter.sign(), alpha=3e-6)
    with pytest.raises(TrainingStopped, match=r"version 3: .* changed with the update.* did nothing.* To do"):
        policy.sync(3)


def test_a_score_that_is_no_number_is_no_agreement() -> None:
    watch = Watch([[1, 2, 3]], max_gap=10.0, max_gap_fp32=1e-3)
    same = [torch.tensor([-1.0, -2.0])]
    assert watch.check(same, [[-1.0, -2.0]], 0, "float32") == 0
    assert watch.check(same, [[-1.0, -3.0]], 0, "bfloat16") == 0.5
    with pytest.raises(TrainingStopped, match=r"0\.001 is allowed in float32"):
        watch.check(same, [[-1.0, -3.0]], 0, "float32")
    with pytest.raises(TrainingStopped, match="nan nats"):
        watch.check(same, [[-1.0, float("nan")]], 0, "bfloat16")


def test_the_canarys_tokens_are_fixed_and_fit_the_engine() -> None:
    first, again = (Watch.of(Canary(tokens=40, rows=4), 13) for _ in range(2))
    assert first.rows == again.rows and [len(row) for row in first.rows] == [10] * 4
    assert {token for row in first.rows for token in row} <= set(range(13))
    assert [len(row) for row in Watch.of(Canary(tokens=40, rows=2), 13, longest=8).rows] == [7, 7]


def test_weights_travel_in_parts_of_a_bounded_size() -> None:
    tensors = {f"w{n}": torch.zeros(n, dtype=torch.uint8) for n in (3, 5, 20, 1, 2)}
    parts = list(parts_of(iter(tensors.items()), most_bytes=8))
    assert [list(part) for part in parts] == [["w3", "w5"], ["w20"], ["w1", "w2"]]
