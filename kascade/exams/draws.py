"""Drawing the answers of a benchmark: from given random numbers, in blocks, kept as they come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kascade.clock import Clock
from kascade.exams.answers import TaskAnswers, append_answers, grade_again, joined, read_answers
from kascade.rollout.answers import Group, answer, answer_with_greedy, grade, grade_by_environment
from kascade.rollout.policy import Policy
from kascade.rollout.types import SamplingParams
from kascade.seeds import derive_seed
from kascade.task import Task


def sit_exam(
    policy: Policy,
    tasks: Sequence[Task],
    params: SamplingParams,
    *,
    num_samples: int,
    seed: int,
    clock: Clock,
    first: int = 0,
) -> list[Group]:
    """The policy's graded answers to each task; `seed` fixes all draws. first: number of the first sample."""
    answered = answer(
        policy,
        tasks,
        params,
        num_samples=num_samples,
        seed_of=lambda task: derive_seed(seed, task.id),
        clock=clock,
        first=first,
    )
    return grade(answered, grade_by_environment, clock)


@dataclass(frozen=True, slots=True)
class Exam:
    """How the answers to a benchmark's tasks are drawn; `seed` fixes all of them.

    exactly: as many samples as asked for and no more; else those that are there are kept and added to.
    """

    params: SamplingParams
    num_samples: int
    seed: int
    with_greedy: bool
    exactly: bool

    def sit_and_keep(
        self, policy: Policy, tasks: Sequence[Task], path: Path, at_a_time: int, clock: Clock
    ) -> list[TaskAnswers]:
        """The answers to all tasks in order, the greedy ones behind a task's drawn ones.

        Those kept at `path` are taken from there; the others are drawn now and kept. Where a grade is missing
        the answer is graded again, and a conversation is held again.
        """
        kept = _graded_again(tasks, read_answers(path), path)
        found = joined(kept)
        for start, pending in self._pending(tasks, found).items():
            for first in range(0, len(pending), at_a_time):
                drawn = self._draw(policy, pending[first : first + at_a_time], start, clock)
                append_answers(path, drawn)
                kept += drawn
        found = joined(kept)
        return [found[key] for task in tasks for key in self._keys(task)]

    def _keys(self, task: Task) -> list[tuple[str, bool]]:
        return [(task.id, greedy) for greedy in ((False, True) if self.with_greedy else (False,))]

    def _pending(
        self, tasks: Sequence[Task], found: dict[tuple[str, bool], TaskAnswers]
    ) -> dict[int, list[Task]]:
        """Tasks that lack answers, by the number of those they have."""
        pending: dict[int, list[Task]] = {}
        for task in tasks:
            have = len(found[task.id, False].answers) if (task.id, False) in found else 0
            if self.exactly and have != self.num_samples:
                have = 0
            if have < self.num_samples or any(key not in found for key in self._keys(task)):
                pending.setdefault(have if have < self.num_samples else 0, []).append(task)
        return pending

    def _draw(self, policy: Policy, tasks: Sequence[Task], start: int, clock: Clock) -> list[TaskAnswers]:
        count, seed = self.num_samples - start, derive_seed(self.seed, "from", 0)
        if not self.with_greedy:
            groups = sit_exam(
                policy, tasks, self.params, num_samples=count, seed=seed, clock=clock, first=start
            )
            return [TaskAnswers.of(group, greedy=False, start=start) for group in groups]
        both = answer_with_greedy(
            policy,
            tasks,
            self.params,
            num_samples=count,
            seed_of=lambda task: derive_seed(seed, task.id),
            clock=clock,
        )
        return [
            TaskAnswers.of(group, greedy=greedy)
            for greedy, answered in zip((False, True), both, strict=True)
            for group in grade(answered, grade_by_environment, clock)
        ]


def _graded_again(tasks: Sequence[Task], kept: list[TaskAnswers], path: Path) -> list[TaskAnswers]:
    """What is kept, with fresh grades where grades are missing; conversations without one are left out."""
    sound = [one for one in kept if not one.is_ungraded]
    again = grade_again(tasks, [one for one in kept if one.is_ungraded and not one.several_turns])
    append_answers(path, again)
    return sound + again
