"""An exam's greedy answers come from the same call as its samples, and are what either call alone gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from toy_cascade import SayA, make_policy

from kascade.clock import Clock
from kascade.environments.base import generate_tasks
from kascade.rollout.answers import answer, answer_with_greedy
from kascade.rollout.policy import Policy
from kascade.rollout.types import Prompt, Sample, SamplingParams
from kascade.seeds import derive_seed
from kascade.task import Task


class Counting:
    """An engine that counts its calls."""

    def __init__(self, policy: Policy) -> None:
        self.engine, self.calls = policy.engine, 0
        self.load_weights: Callable[[int], None] = policy.engine.load_weights
        self.weights_checksum = policy.engine.weights_checksum

    def sample(self, prompts: Sequence[Prompt], params: SamplingParams) -> list[list[Sample]]:
        self.calls += 1
        return self.engine.sample(prompts, params)


def seed_of(task: Task) -> int:
    return derive_seed(5, task.id)


def test_samples_and_greedy_answers_of_one_call_are_those_of_two() -> None:
    policy, params = make_policy(), SamplingParams(6, temperature=0.9)
    tasks = generate_tasks(SayA(), split="test", count=12, seed=0)
    counting = Counting(policy)
    policy.engine = counting
    drawn, greedy = answer_with_greedy(policy, tasks, params, num_samples=2, seed_of=seed_of, clock=Clock())
    assert counting.calls == 1
    apart = answer(policy, tasks, params, num_samples=2, seed_of=seed_of, clock=Clock())
    assert [one.answers for one in drawn] == [one.answers for one in apart]
    alone = answer(
        policy, tasks, replace(params, temperature=0.0), num_samples=1, seed_of=seed_of, clock=Clock()
    )
    assert [one.answers for one in greedy] == [one.answers for one in alone]
    assert all(len(one.samples) == 1 for one in greedy)
