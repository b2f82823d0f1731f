"""A model with an adapter computes what transformers and peft compute, wherever Kascade reads its weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_architectures import (
    VOCABULARY,
    nemotron_h_config,
    nemotron_h_without_latent,
    qwen3_config,
    qwen3_moe_config,
    tiny_tokenizer,
)
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from kascade.errors import UserError
from kascade.models import trunk
from kascade.models.adapter_targets import GATED, known_targets, target_faults
from kascade.models.adapters import (
    add_adapter,
    dropping,
    merge_adapter,
    plain_weights,
    read_adapter,
    sharing_copy,
    trained_tensors,
    without_adapter,
    write_adapter,
)
from kascade.models.batch import TokenBatch
from kascade.models.load import load_model, save_model
from kascade.models.logprobs import token_logprobs
from kascade.recipe.adapter import Adapter
from kascade.rollout.native import NativeEngine
from kascade.rollout.types import Prompt, SamplingParams

CONFIGS: dict[str, Callable[[], Any]] = {
    "qwen3": qwen3_config,
    "qwen3_moe": qwen3_moe_config,
    "nemotron_h": nemotron_h_config,
    "nemotron_h without latent": nemotron_h_without_latent,
}
DIGEST = "0" * 64


def base_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()
    return model


def draw_adapter(model: PreTrainedModel, seed: int, part: Adapter | None = None) -> PreTrainedModel:
    """Give the model an adapter that changes what it says."""
    add_adapter(model, part or Adapter(rank=3, alpha=6), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in trained_tensors(model).values():
            tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
    return model


def ids_of(rows: int = 3, length: int = 12) -> Tensor:
    return torch.randint(2, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(5))


def by_forward(model: Any, ids: Tensor) -> Tensor:
    """Log-probabilities of all tokens but the first by the model's own forward: [rows, T - 1]."""
    with torch.no_grad():
        logprobs = model(input_ids=ids).logits.float().log_softmax(-1)
    return logprobs[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)


def by_kascade(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """The same by Kascade's own definition, through the written-out forward where there is one."""
    rows = ids.tolist()
    batch = TokenBatch.collate(rows, [[i > 0 for i in range(len(row))] for row in rows], 0)
    return token_logprobs(model, batch).logprobs.view(len(rows), -1)


@pytest.fixture(params=CONFIGS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def through_peft(kind: str, tmp_path: Path) -> tuple[PreTrainedModel, Any]:
    """A model with an adapter, and what peft makes of the base and the files that we wrote."""
    base = base_of(kind)
    adapted = draw_adapter(copy.deepcopy(base), 1)
    write_adapter(adapted, tiny_tokenizer(), tmp_path, DIGEST)
    return adapted, PeftModel.from_pretrained(base, tmp_path).eval()


def test_training_scores_are_those_of_transformers_and_peft(
    through_peft: tuple[PreTrainedModel, Any],
) -> None:
    adapted, peft_model = through_peft
    ids = ids_of()
    expected = by_forward(peft_model, ids)
    torch.testing.assert_close(by_kascade(adapted, ids).detach(), expected, atol=1e-5, rtol=0)
    off = by_forward(without_adapter(adapted), ids)
    assert float((expected - off).abs().mean()) > 0.05, (
        "the adapter must matter for this test to mean anything"
    )


def test_sampled_logprobs_are_those_of_transformers_and_peft(
    through_peft: tuple[PreTrainedModel, Any],
) -> None:
    adapted, peft_model = through_peft
    prompts = [Prompt(tuple(row), 2, seed=i) for i, row in enumerate(ids_of().tolist())]
    for prompt, samples in zip(
        prompts, NativeEngine(adapted, end_ids=()).sample(prompts, SamplingParams(9)), strict=True
    ):
        for sample in samples:
            ids = torch.tensor([[*prompt.token_ids, *sample.token_ids]])
            expected = by_forward(peft_model, ids)[0, len(prompt.token_ids) - 1 :]
            torch.testing.assert_close(torch.tensor(sample.logprobs), expected, atol=1e-5, rtol=0)


def test_a_sampler_sees_an_adapter_that_moved(kind: str) -> None:
    adapted = draw_adapter(base_of(kind), 1)
    engine = NativeEngine(adapted, end_ids=())
    prompts = [Prompt(tuple(row), 1, seed=i) for i, row in enumerate(ids_of().tolist())]
    before = engine.sample(prompts, SamplingParams(6, temperature=0))
    checksum = engine.weights_checksum
    with torch.no_grad():
        for tensor in trained_tensors(adapted).values():
            tensor.mul_(-2.0)
    engine.load_weights(1)
    assert engine.weights_checksum != checksum
    after = engine.sample(prompts, SamplingParams(6, temperature=0))
    assert [s[0].token_ids for s in before] != [s[0].token_ids for s in after]
    ids = torch.tensor([[*prompts[0].token_ids, *after[0][0].token_ids]])
    expected = by_forward(adapted, ids)[0, len(prompts[0].token_ids) - 1 :]
    greedy = torch.tensor(after[0][0].logprobs)
    torch.testing.assert_close(greedy, expected, atol=1e-5, rtol=0)


def test_gradients_reach_the_adapter_alone_and_are_those_of_the_own_forward(kind: str) -> None:
    adapted = draw_adapter(base_of(kind), 1)
    ids = ids_of()
    assert trunk.knows(adapted) == trunk.knows(base_of(kind))
    by_kascade(adapted, ids).sum().backward()
    found = {name: p.grad for name, p in adapted.named_parameters() if p.grad is not None}
    assert found.keys() == {name for name, _ in adapted.named_parameters() if ".lora_" in name}
    again = copy.deepcopy(adapted)
    again.zero_grad()
    logprobs = again(input_ids=ids).logits.float().log_softmax(-1)
    logprobs[:, :-1].gather(-1, ids[:, 1:, None]).sum().backward()
    for name, parameter in again.named_parameters():
        if ".lora_" in name:
            scale = float(parameter.grad.abs().max())
            torch.testing.assert_close(
                found[name] / scale, parameter.grad / scale, atol=5e-5, rtol=0, msg=name
            )


def test_a_new_adapter_changes_nothing_and_the_same_seed_draws_the_same(kind: str) -> None:
    base, ids = base_of(kind), ids_of()
    one, same, other = (copy.deepcopy(base) for _ in range(3))
    for model, seed in ((one, 3), (same, 3), (other, 4)):
        add_adapter(model, Adapter(rank=2), seed)
    assert torch.equal(by_forward(one, ids), by_forward(base, ids))
    first, second, third = (
        torch.cat([t.flatten() for t in trained_tensors(m).values()]) for m in (one, same, other)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_adapters_of_one_base_hold_it_once_and_off_is_the_base(kind: str) -> None:
    base, ids = base_of(kind).requires_grad_(False), ids_of()
    student = draw_adapter(copy.deepcopy(base), 1)
    teachers = [draw_adapter(without_adapter(student), seed) for seed in (2, 3)]
    reference = without_adapter(student)
    held = {p.data_ptr() for p in student.parameters()}
    for model in (*teachers, reference):
        own = {name for name, p in model.named_parameters() if p.data_ptr() not in held}
        assert own == {name for name, _ in model.named_parameters() if ".lora_" in name}
    apart = [by_forward(draw_adapter(copy.deepcopy(base), seed), ids) for seed in (1, 2, 3)]
    for model, expected in zip((student, *teachers), apart, strict=True):
        assert torch.equal(by_forward(model, ids), expected)
    assert torch.equal(by_forward(reference, ids), by_forward(base, ids))
    frozen = sharing_copy(student)
    with torch.no_grad():
        for tensor in trained_tensors(student).values():
            tensor.zero_()
    assert torch.equal(by_forward(frozen, ids), apart[0]), "a reference must not move with the policy"


def test_merged_and_saved_it_is_a_whole_model_and_stays_an_adapter_here(kind: str, tmp_path: Path) -> None:
    base, ids = base_of(kind), ids_of()
    adapted = draw_adapter(copy.deepcopy(base), 1)
    expected = by_forward(adapted, ids)
    save_model(adapted, tiny_tokenizer(), tmp_path)
    loaded = load_model(tmp_path)
    assert {name for name, _ in loaded.named_parameters()} == {name for name, _ in base.named_parameters()}
    torch.testing.assert_close(by_forward(loaded, ids), expected, atol=1e-5, rtol=0)
    assert any(".lora_" in name for name, _ in adapted.named_parameters())
    assert all(
        torch.equal(a, b)
        for (_, a), (_, b) in zip(plain_weights(adapted), plain_weights(loaded), strict=True)
    )


def test_what_was_written_is_read_and_another_base_is_refused(kind: str, tmp_path: Path) -> None:
    base = base_of(kind)
    adapted = draw_adapter(copy.deepcopy(base), 1)
    write_adapter(adapted, tiny_tokenizer(), tmp_path, DIGEST)
    said = json.loads((tmp_path / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == f"sha256:{DIGEST}"
    read_adapter(base, tmp_path, Adapter(rank=3))
    assert all(
        torch.equal(a, b)
        for a, b in zip(trained_tensors(base).values(), trained_tensors(adapted).values(), strict=True)
    )
    assert all(t.requires_grad for t in trained_tensors(base).values())
    wider = CONFIGS[kind]()
    wider.hidden_size = 64
    with pytest.raises(UserError, match="does not fit its base"):
        read_adapter(AutoModelForCausalLM.from_config(wider), tmp_path)


def test_the_light_table_of_targets_is_what_the_model_has(kind: str) -> None:
    model = base_of(kind)
    linear = {n.rpartition(".")[2] for n, m in model.base_model.named_modules() if type(m) is torch.nn.Linear}
    known = set(known_targets(json.loads(json.dumps(model.config.to_dict(), default=str))) or ())
    left_out = {"gate", "out_proj"} | ({*GATED} if kind == "qwen3_moe" else set())
    assert known == linear - left_out


@pytest.mark.parametrize(
    ("kind", "target", "reason"),
    [
        ("nemotron_h", "out_proj", "Mamba kernels read the weight of out_proj"),
        ("nemotron_h", "conv1d", "Mamba kernels read the weight of conv1d"),
        ("qwen3_moe", "experts", "experts are stacked"),
        ("qwen3", "lm_head", "the output layer keeps its weights"),
        ("qwen3", "q_prj", "no linear layer 'q_prj'"),
    ],
)
def test_targets_that_a_model_lacks_are_refused_by_name(kind: str, target: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        add_adapter(base_of(kind), Adapter(targets=("q_proj", target)), 0)
    assert len(caught.value.faults) == 1
    assert "q_proj" in str(caught.value.faults[0].allowed)


def test_a_near_miss_is_named() -> None:
    (fault,) = target_faults("qwen3", ["q_prj"], ["q_proj", "k_proj"])
    assert fault.remedy == "did you mean 'q_proj'?"


def test_an_unknown_architecture_takes_any_of_its_linear_layers() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(**sizes, vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=None, eos_token_id=1)
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = ids_of()
    adapted = draw_adapter(model, 1)
    assert any("gate_proj.lora_A" in name for name, _ in adapted.named_parameters())
    torch.testing.assert_close(by_kascade(adapted, ids).detach(), by_forward(adapted, ids), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="no linear layer 'in_proj'"):
        add_adapter(AutoModelForCausalLM.from_config(config), Adapter(targets=("in_proj",)), 0)


def test_adapters_are_float32_on_a_bfloat16_base() -> None:
    adapted = draw_adapter(base_of("qwen3").to(torch.bfloat16), 1)
    assert {t.dtype for t in trained_tensors(adapted).values()} == {torch.float32}
    ids = ids_of()
    whole = sharing_copy(adapted)
    merge_adapter(whole)
    assert whole.dtype == torch.bfloat16
    torch.testing.assert_close(by_forward(whole, ids), by_forward(adapted, ids), atol=0.15, rtol=0)
    torch.testing.assert_close(by_kascade(adapted, ids).float(), by_forward(adapted, ids), atol=0.15, rtol=0)


def test_dropout_drops_within_and_alike_for_one_seed() -> None:
    adapted, ids = draw_adapter(base_of("qwen3"), 1, Adapter(rank=3, alpha=6, dropout=0.5)), ids_of()
    plain = by_kascade(adapted, ids)
    drawn = []
    for seed in (1, 1, 2):
        with dropping(adapted, seed):
            drawn.append(by_kascade(adapted, ids))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(by_kascade(adapted, ids), plain)
