"""RL on conversations: what the environment says is read, never learnt from, and the reward rises."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest
from pydantic import TypeAdapter
from toy_cascade import LETTERS, Letters, make_policy, stage

from kascade.clock import Clock
from kascade.environments import BUILTIN, get_environment
from kascade.environments.base import Session, Turn, generate_tasks
from kascade.exams.draws import sit_exam
from kascade.learning.advantages import group_signal
from kascade.recipe.schema import Stage
from kascade.rollout.answers import answer, grade, grade_by_environment, sampling_params
from kascade.stages.grpo import policy_gradient_examples, train_grpo
from kascade.stages.tasks import training_pool
from kascade.stages.training import Training
from kascade.task import Domain, Grade, Message, Task


class TwoLetters(Session):
    """Two questions; both want an a. The second question is in the environment's words."""

    def __init__(self) -> None:
        self.shares: list[float] = []

    def respond(self, answer: str) -> Turn | Grade:
        said = answer.split()
        self.shares.append(said.count("a") / len(said) if said else 0.0)
        if len(self.shares) == 2:
            return self.stop()
        return Turn(({"role": "user", "content": "h g"},))

    def stop(self) -> Grade:
        return Grade(sum(self.shares) / 2)


class AskTwice(Letters):
    name = "ask_twice"
    domain: ClassVar[Domain] = "tool_use"

    def pose(self, rng: random.Random, level: float) -> Task:
        words = " ".join(rng.choice(LETTERS) for _ in range(3))
        return Task(self.name, self.domain, (Message(role="user", content=words),), {})

    def start(self, task: Task) -> Session | None:
        return TwoLetters()

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        raise AssertionError("a conversation grades itself")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(BUILTIN, "ask_twice", "test_conversational_rl:AskTwice")
    get_environment.cache_clear()
    yield
    get_environment.cache_clear()


def part(**more: Any) -> Any:
    return TypeAdapter(Stage).validate_python(stage("rl", "swe_rl", "ask_twice", **more))


def test_only_what_the_policy_said_enters_the_loss() -> None:
    policy, learnt = make_policy(), part()
    tasks = generate_tasks(get_environment("ask_twice"), split="train", count=4, seed=0)
    clock = Clock()
    answered = answer(
        policy,
        tasks,
        sampling_params(learnt.sampling),
        num_samples=4,
        seed_of=lambda task: 1,
        clock=clock,
    )
    groups = grade(answered, grade_by_environment, clock)
    signals = [(g, group_signal(g.rewards, g.graded, g.truncated, learnt.grpo)) for g in groups]
    usable = [pair for pair in signals if pair[1].usable]
    assert usable
    examples = policy_gradient_examples(usable, learnt)
    spoken = {tuple(policy.chat._encode("h g"))}
    seen = 0
    for example in examples:
        columns = {len(column) for column in example.columns.values()}
        assert columns == {sum(example.scored)}
        ids, scored = list(example.token_ids), list(example.scored)
        assert len(ids) == len(scored) and not scored[0]
        for start in range(len(ids) - 1):
            if tuple(ids[start : start + 2]) in spoken and not scored[start]:
                seen += 1
                assert not scored[start + 1]
    assert seen > 0


def test_grpo_raises_the_reward_of_conversations() -> None:
    policy, learnt = make_policy(), part(steps=24)
    tasks = generate_tasks(get_environment("ask_twice"), split="test", count=20, seed=0)

    def reward() -> float:
        params = sampling_params(learnt.sampling)
        groups = sit_exam(policy, tasks, params, num_samples=2, seed=1, clock=Clock())
        return float(sum(group.rewards.mean() for group in groups) / len(groups))

    before = reward()
    metrics: list[Any] = []
    tasks_of_rl = training_pool(learnt.data, 0, "rl")
    train_grpo(Training(learnt, policy, tasks_of_rl, after_step=metrics.append))
    assert metrics == list(range(1, learnt.steps + 1))
    assert reward() > before + 0.15
