"""Ratios, clipping, corrections and aggregation: closed forms, and TRL where it has the same thing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import tiny_qwen3

from kascade.learning.example import Example
from kascade.learning.losses import (
    clipped_policy_loss,
    constant_weights,
    importance_weights,
    per_sample_weights,
    per_token_weights,
    policy_gradient_loss,
)
from kascade.learning.objectives import PolicyGradient, Supervised
from kascade.learning.trainer import collate
from kascade.recipe.schema import GRPO, Correction

LOW, HIGH = 0.2, 0.28


def logs(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).log()


def test_on_policy_the_clipped_gradient_is_the_plain_one():
    logprobs = torch.randn(6, dtype=torch.float64)
    advantages, weights = torch.randn(6, dtype=torch.float64), torch.rand(6, dtype=torch.float64)
    leaf, other = (logprobs.clone().requires_grad_() for _ in range(2))
    clipped_policy_loss(leaf, logprobs, advantages, weights, low=LOW, high=HIGH).backward()
    policy_gradient_loss(other, advantages, weights).backward()
    torch.testing.assert_close(leaf.grad, other.grad)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "moves"),
    [
        (1.5, 1.0, -1.28, False),  # clipped higher above than below
        (1.25, 1.0, -1.25, True),
        (0.5, 1.0, -0.5, True),  # a good token that became rarer is still pulled up
        (0.5, -1.0, 0.8, False),
        (1.5, -1.0, 1.5, True),
    ],
)
def test_clipping_takes_the_worse_of_both(ratio: float, advantage: float, expected: float, moves: bool):
    leaf = logs(ratio).requires_grad_()
    one = torch.ones(1, dtype=torch.float64)
    loss = clipped_policy_loss(leaf, logs(1.0), advantage * one, one, low=LOW, high=HIGH)
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(expected, dtype=torch.float64))
    assert bool(leaf.grad) is moves


def test_corrections_clamp_drop_tokens_or_drop_rollouts():
    ratios = logs(0.1, 1.0, 8.0, 0.5, 2.0)
    sampler = torch.zeros(5, dtype=torch.float64)
    rollouts = torch.tensor([7, 7, 7, 3, 3])
    found, kept = importance_weights(ratios, sampler, rollouts, Correction(rule="tis", low=0.2, high=5))
    torch.testing.assert_close(found, torch.tensor([0.2, 1.0, 5.0, 0.5, 2.0], dtype=torch.float64))
    assert kept.all()
    found, kept = importance_weights(ratios, sampler, rollouts, Correction(rule="icepop", low=0.5, high=5))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 0.0, 0.5, 2.0], dtype=torch.float64))
    assert kept.tolist() == [False, True, False, True, True]
    # geometric means: 0.8 ** (1 / 3) = 0.928 and 1
    rule = Correction(rule="sequence_mask", low=0.95, high=1.05)
    found, kept = importance_weights(ratios, sampler, rollouts, rule)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 0.0, 0.5, 2.0], dtype=torch.float64))
    assert kept.tolist() == [False, False, False, True, True]


def test_constant_weights_do_not_know_lengths():
    assert constant_weights([1, 3], 10) == [0.05, 0.05]


PROMPT = [3, 4, 5]
ANSWERS = [[6, 7, 8, 9], [6, 7], [10, 11, 12], [13]]
ADVANTAGES = [1.0, -0.5, 0.25, -0.75]
LONGEST = 4


def our_loss(model: Any, weights: list[float], old: torch.Tensor | None, kl: float, ref: torch.Tensor) -> Any:
    examples = [
        Example(
            [*PROMPT, *answer],
            [False] * len(PROMPT) + [True] * len(answer),
            {
                "weights": torch.full((len(answer),), weight),
                "advantages": torch.full((len(answer),), advantage),
                "sampler_logprobs": torch.zeros(len(answer)),
                "reference_logprobs": ref[row, : len(answer)],
                **({} if old is None else {"old_logprobs": old[row, : len(answer)]}),
            },
        )
        for row, (answer, weight, advantage) in enumerate(zip(ANSWERS, weights, ADVANTAGES, strict=True))
    ]
    batch, columns = collate(model, examples, 0)
    return PolicyGradient(0.8, GRPO(kl_coefficient=kl))(model, batch, columns).loss


def trl_loss(model: Any, kind: str, old: torch.Tensor | None, kl: float, ref: torch.Tensor) -> Any:
    """TRL's own `_compute_loss` on the same rollouts, with as little of a trainer around it as it needs."""
    grpo = pytest.importorskip("trl.trainer.grpo_trainer", reason="TRL is the oracle")
    mask = torch.tensor([[position < len(a) for position in range(LONGEST)] for a in ANSWERS]).long()
    ids = torch.tensor([a + [0] * (LONGEST - len(a)) for a in ANSWERS])

    def scores(model: Any, input_ids: Any, attention_mask: Any, keep: int, **_: Any) -> Any:
        logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, -keep - 1 : -1] / 0.8
        logprobs = logits.log_softmax(-1)
        chosen = logprobs.gather(-1, input_ids[:, -keep:, None]).squeeze(-1)
        return chosen, -(logprobs.exp() * logprobs).sum(-1), None

    nothing = SimpleNamespace(
        gather=lambda x: x, gather_for_metrics=lambda x: x, num_processes=1, reduce=lambda x, **_: x
    )
    trainer = SimpleNamespace(
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level="token", beta=kl, loss_type=kind, epsilon_low=LOW, epsilon_high=HIGH,
        use_vllm=False, vllm_importance_sampling_correction=False, max_completion_length=LONGEST,
        current_gradient_accumulation_steps=1, model=model, accelerator=nothing, _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        _get_per_token_logps_and_entropies=scores, _metrics={"train": _Lists(), "eval": _Lists()},
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.tensor([PROMPT] * len(ANSWERS)),
        "prompt_mask": torch.ones(len(ANSWERS), len(PROMPT), dtype=torch.long),
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": torch.tensor(ADVANTAGES),
        "num_items_in_batch": mask.sum(),
        "ref_per_token_logps": ref,
    }
    if old is not None:
        inputs["old_per_token_logps"] = old
    return grpo.GRPOTrainer._compute_loss(trainer, model, inputs)


class _Lists(dict[str, list[float]]):
    def __missing__(self, key: str) -> list[float]:
        return self.setdefault(key, [])


@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("kl", [0.0, 0.03])
@pytest.mark.parametrize("kind", ["dapo", "grpo", "dr_grpo"])
def test_loss_and_gradient_are_trls(kind: str, kl: float, off_policy: bool):
    """TRL's on-policy loss has the ratio 1 where ours has log pi, so there only gradients are compared."""
    torch.manual_seed(0)
    lengths = [len(answer) for answer in ANSWERS]
    weights = {
        "dapo": per_token_weights(lengths),
        "grpo": per_sample_weights(lengths),
        "dr_grpo": constant_weights(lengths, LONGEST),
    }[kind]
    reference = -torch.rand(len(ANSWERS), LONGEST) * 3
    old = -torch.rand(len(ANSWERS), LONGEST) * 3 if off_policy else None
    ours, theirs = tiny_qwen3(), tiny_qwen3()
    loss = our_loss(ours, weights, old, kl, reference)
    expected = trl_loss(theirs, kind, old, kl, reference)
    if off_policy:
        torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    loss.backward()
    expected.backward()
    for (name, ours_p), theirs_p in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours_p.grad, theirs_p.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_supervised_loss_is_transformers():
    model = tiny_qwen3()
    ids, weights = [*PROMPT, *ANSWERS[0]], per_token_weights([len(ANSWERS[0])])
    mask = [False] * len(PROMPT) + [True] * len(ANSWERS[0])
    batch, columns = collate(model, [Example(ids, mask, {"weights": torch.tensor(weights * 4)})], 0)
    labels = torch.tensor([[-100] * len(PROMPT) + ANSWERS[0]])
    expected = model(input_ids=torch.tensor([ids]), labels=labels).loss
    torch.testing.assert_close(Supervised()(model, batch, columns).loss, expected, atol=1e-5, rtol=0)
