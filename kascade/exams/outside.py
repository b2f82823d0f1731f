"""Benchmarks of other tools as scores of a checkpoint, kept per task like all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kascade.environments import get_environment
from kascade.environments.outside.settings import HarnessOptions, LmEvalOptions
from kascade.exams.answers import TaskAnswers
from kascade.exams.harness import filled, harness_answers
from kascade.exams.lm_eval_runs import lm_eval_answers
from kascade.recipe.identity import data_digest, short_hash
from kascade.recipe.schema import Benchmark
from kascade.results.model import Answer, by_task
from kascade.rollout.answers import sampling_params

if TYPE_CHECKING:
    from kascade.rollout.policy import Policy


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of another tool: answers per task and the seed of all draws.

    checkpoint, digest: who answers, in commands and paths.
    """

    benchmark: Benchmark
    checkpoint: str
    digest: str
    samples: int
    seed: int

    @property
    def options(self) -> LmEvalOptions | HarnessOptions:
        """Raises ValueError for options that will not do."""
        kind = get_environment(self.benchmark.source.environment).options_type
        found = kind.of(self.benchmark.source.options) if kind else None
        if not isinstance(found, LmEvalOptions | HarnessOptions):
            raise ValueError(f"{self.benchmark.source.environment} is no benchmark of another tool")
        return found

    @property
    def words(self) -> dict[str, str]:
        """What may stand in a command or a path."""
        return {
            "checkpoint": self.checkpoint,
            "digest": self.digest,
            "tasks": str(self.benchmark.tasks),
            "samples": str(self.samples),
            "seed": str(self.seed % 2**31),
        }

    def hashed(self) -> str:
        """Hash of all that the answers depend on, but for their number."""
        options, one = self.options, self.benchmark
        plain = [one.source.environment, options.model_dump(mode="json"), one.tasks, list(one.reward_range)]
        if isinstance(options, LmEvalOptions):
            files = options.include
        else:
            files = None if options.command else filled(options.results, self.words)
        sampling = one.sampling.model_dump(mode="json") if options.sampled else None
        return short_hash([*plain, sampling, self.seed, data_digest(files) if files else None])


def ask_outside(policy: Policy, asked: Asked) -> list[TaskAnswers]:
    """All tasks, answered by the policy and graded by the tool. Raises UserError where the tool fails."""
    options, benchmark = asked.options, asked.benchmark
    if isinstance(options, LmEvalOptions):
        return lm_eval_answers(
            policy,
            options,
            tasks=benchmark.tasks,
            params=sampling_params(benchmark.sampling),
            samples=asked.samples,
            seed=asked.seed,
        )
    most = benchmark.sampling.max_new_tokens
    return _by_task(harness_answers(policy, options, asked.words, most))


def _by_task(answers: list[Answer]) -> list[TaskAnswers]:
    """The answers of each task together, in order of their samples. Their tokens are not known."""
    return [_of_task(task, own) for (_, task), own in by_task(answers, "the tool's results").items()]


def _of_task(task: str, own: list[Answer]) -> TaskAnswers:
    return TaskAnswers(
        task_id=task,
        greedy=False,
        prompt=next((one.prompt for one in own if one.prompt), ""),
        answers=tuple(one.text or "" for one in own),
        num_tokens=(0,) * len(own),
        truncated=(False,) * len(own),
        rewards=tuple(one.reward for one in own),
        components=({},) * len(own),
        errors=tuple("the tool gave no grade" if one.reward is None else None for one in own),
        several_turns=False,
    )
