"""Losses against closed forms and autograd."""

from __future__ import annotations

import torch

from kascade.learning.losses import (
    bradley_terry_loss,
    kl_k3,
    per_sample_weights,
    per_token_weights,
    policy_gradient_loss,
    reverse_kl,
    sampled_distillation,
    supervised_loss,
)


def logprobs_of(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits, -1).gather(-1, tokens[:, None]).squeeze(-1)


def test_per_token_and_per_sample_weights_differ_on_uneven_lengths():
    assert per_token_weights([1, 3]) == [0.25, 0.25]
    assert per_sample_weights([1, 3]) == [0.5, 1 / 6]
    nll = torch.tensor([4.0, 1.0, 1.0, 1.0])
    lengths = torch.tensor([1, 3])
    for weights, expected in ((per_token_weights([1, 3]), 7 / 4), (per_sample_weights([1, 3]), 2.5)):
        loss = supervised_loss(-nll, torch.tensor(weights).repeat_interleave(lengths))
        torch.testing.assert_close(loss, torch.tensor(expected))


def test_policy_gradient_is_the_score_times_the_advantage():
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    tokens = torch.tensor([0, 3, 6, 1, 1])
    advantages = torch.tensor([1.0, -0.5, 0.0, 2.0, -1.0], dtype=torch.float64)
    weights = torch.full((5,), 1 / 5, dtype=torch.float64)
    policy_gradient_loss(logprobs_of(logits, tokens), advantages, weights).backward()
    onehot = torch.nn.functional.one_hot(tokens, 7)
    expected = -(weights * advantages)[:, None] * (onehot - torch.softmax(logits, -1))
    torch.testing.assert_close(logits.grad, expected.detach())


def test_k3_is_zero_at_equality_and_never_negative():
    logprobs = -torch.rand(100)
    assert torch.equal(kl_k3(logprobs, logprobs), torch.zeros(100))
    assert (kl_k3(logprobs, -torch.rand(100)) >= 0).all()
    torch.testing.assert_close(kl_k3(torch.zeros(1), torch.ones(1)), torch.tensor([torch.e - 2]))


def distil(trainer: torch.Tensor, sampler: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Gradient by log-probability of the sampled-token loss, with weights 1."""
    leaf = trainer.clone().requires_grad_()
    ones = torch.ones_like(trainer)
    sampled_distillation(leaf, sampler, teacher, ones, low=0.5, high=2.0).loss.backward()
    assert leaf.grad is not None
    return leaf.grad


def test_a_student_like_its_teacher_has_no_gradient():
    logprobs = -torch.rand(10)
    assert not distil(logprobs, logprobs, logprobs).any()


def test_the_gradient_is_ratio_times_advantage():
    trainer, sampler, teacher = torch.tensor([-1.0]), torch.tensor([-1.5]), torch.tensor([-0.25])
    expected = -torch.exp(torch.tensor([0.5])) * 0.75
    torch.testing.assert_close(distil(trainer, sampler, teacher), expected)


def test_tokens_outside_the_importance_range_are_dropped_not_clamped():
    ratios = torch.tensor([0.49, 0.51, 1.99, 2.01])
    trainer = torch.full((4,), -3.0)
    gradient = distil(trainer, trainer - ratios.log(), trainer + 1.0)
    assert (gradient != 0).tolist() == [False, True, True, False]
    torch.testing.assert_close(gradient[1:3], -ratios[1:3])


def test_full_reverse_kl_is_zero_at_equality_and_matches_its_definition():
    student, teacher = (torch.log_softmax(torch.randn(4, 9, dtype=torch.float64), -1) for _ in range(2))
    assert torch.equal(reverse_kl(student, student), torch.zeros(4, dtype=torch.float64))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=student), torch.distributions.Categorical(logits=teacher)
    )
    torch.testing.assert_close(reverse_kl(student, teacher), expected)


def test_sampled_distillation_is_the_full_one_in_expectation():
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    teacher = torch.log_softmax(torch.randn(5, dtype=torch.float64), -1)
    student = torch.log_softmax(logits, -1)
    reverse_kl(student, teacher).backward(retain_graph=True)
    full, logits.grad = logits.grad, None
    probabilities = student.detach().exp()
    sampled_distillation(student, student.detach(), teacher, probabilities, low=0.5, high=2.0).loss.backward()
    torch.testing.assert_close(logits.grad, full)


def test_bradley_terry_closed_form():
    loss = bradley_terry_loss(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]))
    expected = (torch.log1p(torch.exp(torch.tensor(-1.0))) + torch.log(torch.tensor(2.0))) / 2
    torch.testing.assert_close(loss, expected)
