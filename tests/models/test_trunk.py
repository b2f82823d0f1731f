"""Values and gradients of the training forward are the model's own, prompts shared or not."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GPT2Config, NemotronHConfig, PreTrainedModel

from kascade.miniature.config import mini_config
from kascade.models import trunk
from kascade.models.batch import TokenBatch
from kascade.models.fused import causal_convolution, gated_norm, squared_relu, squared_relu_experts
from kascade.models.logprobs import token_logprobs
from kascade.models.norms import rms_norm, rotated_heads
from kascade.models.ssm import CHUNK, scan

VOCABULARY = 64


def hybrid_with_all_layer_kinds() -> NemotronHConfig:
    return NemotronHConfig(
        vocab_size=VOCABULARY, hidden_size=32, hybrid_override_pattern="M-M*EME", num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, mamba_num_heads=4, mamba_head_dim=8, ssm_state_size=8, n_groups=2,
        chunk_size=16, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        moe_shared_expert_intermediate_size=32, intermediate_size=48, routed_scaling_factor=2.5,
        initializer_range=0.2, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip


CONFIGS = {
    "mini-nemotron-h": lambda: mini_config("mini-nemotron-h", VOCABULARY, 0, None, 1),
    "two groups, no latent": hybrid_with_all_layer_kinds,
    "mini-qwen3": lambda: mini_config("mini-qwen3", VOCABULARY, 0, None, 1),
}


def make(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[name]()).eval()
    return model


def rollouts(
    prompts: tuple[int, ...], answers: tuple[int, ...], seed: int = 0
) -> tuple[list[list[int]], list[list[bool]]]:
    """Sequences of prompts of given lengths, each with answers of the given lengths, in random order."""
    rng = random.Random(seed)
    made = []
    for length in prompts:
        prompt = [rng.randrange(2, VOCABULARY) for _ in range(length)]
        for answer in answers:
            made.append(([*prompt, *(rng.randrange(2, VOCABULARY) for _ in range(answer))], length))
    rng.shuffle(made)
    return [ids for ids, _ in made], [[position >= cut for position in range(len(ids))] for ids, cut in made]


def learn(model: PreTrainedModel, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities, and the gradients of a loss that weighs each token differently."""
    model.zero_grad()
    logprobs = token_logprobs(model, batch).logprobs
    (logprobs * torch.linspace(-1, 1, len(logprobs))).sum().backward()
    return logprobs.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(found: tuple[Tensor, dict[str, Tensor]], expected: tuple[Tensor, dict[str, Tensor]]) -> None:
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        scale = float(gradient.abs().max()) or 1.0
        torch.testing.assert_close(found[1][name] / scale, gradient / scale, atol=2e-5, rtol=0, msg=name)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize(
    ("prompts", "answers"),
    [((1, 2, 9), (1, 3, 30)), ((CHUNK + 5, 20), (2, CHUNK + 3)), ((7,), (4,))],
    ids=["short", "longer than a chunk", "nothing to share"],
)
@pytest.mark.parametrize("name", CONFIGS)
def test_the_gradient_is_that_of_the_models_own_forward(
    name: str,
    prompts: tuple[int, ...],
    answers: tuple[int, ...],
    share: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make(name)
    assert trunk.knows(model)
    sequences, scored = rollouts(prompts, answers)
    found = learn(model, TokenBatch.collate(sequences, scored, 0, share_prefixes=share))
    monkeypatch.setattr(trunk, "_trunk_of", lambda model: None)
    assert_same(found, learn(model, TokenBatch.collate(sequences, scored, 0)))


def test_a_shared_prompt_is_there_once() -> None:
    sequences, scored = rollouts((20, 20), (5,) * 8)
    batch = TokenBatch.collate(sequences, scored, 0, share_prefixes=True)
    assert len(batch.token_ids) == 2 * 20 + 16 * 5
    assert len(TokenBatch.collate(sequences, scored, 0).token_ids) == 16 * 25


def test_unscored_tokens_within_an_answer_stay_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool's result between two turns: not scored, but seen by what follows."""
    model = make("mini-nemotron-h")
    sequences, scored = rollouts((6,), (12, 9))
    for mask in scored:
        mask[8:11] = [False] * 3
    found = learn(model, TokenBatch.collate(sequences, scored, 0, share_prefixes=True))
    monkeypatch.setattr(trunk, "_trunk_of", lambda model: None)
    assert_same(found, learn(model, TokenBatch.collate(sequences, scored, 0)))


def test_an_unknown_architecture_runs_itself_and_refuses_blocks() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    ).eval()
    assert not trunk.knows(model)
    sequences, scored = rollouts((5,), (3, 4))
    plain = token_logprobs(model, TokenBatch.collate(sequences, scored, 0)).logprobs
    logits = model(input_ids=torch.tensor([sequences[0]])).logits[0, :-1].log_softmax(-1)
    expected = logits.gather(1, torch.tensor(sequences[0][1:])[:, None])[scored[0][1:]].squeeze(1)
    torch.testing.assert_close(plain[: len(expected)], expected)
    with pytest.raises(ValueError, match="not blocks"):
        token_logprobs(model, TokenBatch.collate(sequences, scored, 0, share_prefixes=True))


def test_hooks_and_foreign_layers_switch_to_the_models_own_forward() -> None:
    model = make("mini-nemotron-h")
    handle = model.model.layers[2].mixer.gate.register_forward_hook(lambda *_: None)
    assert not trunk.knows(model)
    handle.remove()
    assert trunk.knows(model)

    class Swapped(torch.nn.Linear):
        """What a low-precision layer looks like from outside."""

    model.model.layers[0].mixer.in_proj.__class__ = Swapped
    assert not trunk.knows(model)


def doubles(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def test_written_out_gradients_are_right() -> None:
    torch.manual_seed(0)
    check = torch.autograd.gradcheck
    assert check(lambda x, w: rms_norm(x, w, 1e-5), (doubles(3, 2, 6), doubles(6)))
    angles = doubles(5, 1, 4).detach(), doubles(5, 1, 4).detach()
    assert check(
        lambda x, q, k: rotated_heads(x, (q, k), (3, 2), 1e-5, angles),
        (doubles(5, 7, 4), doubles(4), doubles(4)),
    )
    assert check(squared_relu, (doubles(5, 4),))
    assert check(
        lambda y, z, w: gated_norm(y, z, w, groups=2, eps=1e-5), (doubles(3, 8), doubles(3, 8), doubles(8))
    )
    assert check(causal_convolution, (doubles(2, 7, 3), doubles(4, 3), doubles(3)))
    chosen = torch.tensor([[0, 2], [2, 1], [0, 1], [2, 0]])  # of four experts one is idle
    assert check(
        lambda *inputs: squared_relu_experts(*inputs, chosen),
        (doubles(4, 3), doubles(4, 5, 3), doubles(4, 3, 5), doubles(4, 2)),
    )


@pytest.mark.parametrize("from_state", [False, True])
@pytest.mark.parametrize("length", [1, 5, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
def test_the_scan_is_the_recurrence(length: int, from_state: bool) -> None:
    torch.manual_seed(length)
    rows, heads, width, groups, size = 2, 4, 3, 2, 5
    u = torch.randn(rows, length, heads, width, dtype=torch.float64)
    dt = torch.rand(rows, length, heads, dtype=torch.float64)
    rate = -torch.rand(heads, dtype=torch.float64)
    write, read = (torch.randn(rows, length, groups, size, dtype=torch.float64) for _ in range(2))
    begin = (
        torch.randn(rows, groups, size, heads // groups * width, dtype=torch.float64) if from_state else None
    )
    y, end = scan(u, dt, rate, write, read, state=begin)
    state = torch.zeros(rows, groups, size, heads // groups, width, dtype=torch.float64)
    if begin is not None:
        state = begin.view_as(state).clone()
    for t in range(length):
        pushed = (u[:, t] * dt[:, t, :, None]).view(rows, groups, 1, heads // groups, width)
        decay = (dt[:, t] * rate).exp().view(rows, groups, 1, heads // groups, 1)
        state = state * decay + write[:, t, :, :, None, None] * pushed
        expected = torch.einsum("rgn,rgnhp->rghp", read[:, t], state).reshape(rows, heads, width)
        torch.testing.assert_close(y[:, t], expected)
    torch.testing.assert_close(end, state.flatten(3))


def by_segment(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    *_: int,
    **options: object,
) -> Tensor:
    """What `torch.nn.attention.varlen.varlen_attn` computes, segment by segment."""
    assert options["window_size"] == (-1, 0)
    parts = []
    for segment in range(len(query_ends) - 1):
        q = query[query_ends[segment] : query_ends[segment + 1]].transpose(0, 1)
        k, v = (x[key_ends[segment] : key_ends[segment + 1]].transpose(0, 1) for x in (key, value))
        seen = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool).tril(k.shape[1] - q.shape[1])
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        parts.append(out.transpose(0, 1))
    return torch.cat(parts)


@pytest.mark.parametrize("packed", [False, True])
def test_rows_of_any_lengths_attend_in_one_call_of_a_kernel(
    monkeypatch: pytest.MonkeyPatch, *, packed: bool
) -> None:
    """Only the kernel is another's; which queries see which keys is ours, whether rows are padded or not."""
    model = make("mini-qwen3")
    sequences, scored = rollouts((1, 9, 4), (1, 3, 3, 30))
    expected = learn(model, TokenBatch.collate(sequences, scored, 0, share_prefixes=True))
    monkeypatch.setattr(trunk, "varlen_kernel", lambda device, dtype: by_segment)
    assert trunk.packs(model)
    batch = TokenBatch.collate(sequences, scored, 0, share_prefixes=True, packed=packed)
    assert_same(learn(model, batch), expected)
    if packed:
        padding = sum(int(b.rows * b.length - b.lengths.sum()) for b in batch.blocks[1:])
        assert padding == 0
