"""A recipe's benchmarks asked of any model, outside of a run: a checkpoint, or an API."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from kascade.clock import Clock
from kascade.environments.outside.settings import HarnessOptions
from kascade.errors import Fault, UserError
from kascade.exams.answers import TaskAnswers, prompt_text
from kascade.exams.draws import Exam
from kascade.exams.endpoint import Endpoint, is_endpoint, speak
from kascade.exams.exams import Draw, draw_seed
from kascade.exams.harness import Api, answers_at
from kascade.exams.outside import Asked, ask_outside
from kascade.exams.tasks import benchmark_tasks
from kascade.recipe.identity import short_hash
from kascade.recipe.schema import Benchmark, Recipe
from kascade.results.model import Answer, Results
from kascade.rollout.answers import sampling_params
from kascade.rollout.checkpoint_judge import set_up_judge
from kascade.serving.served import checkpoint_folder
from kascade.storage.files import write_text

if TYPE_CHECKING:
    from kascade.rollout.policy import Policy


def evaluate_anywhere(
    named: str,
    recipe: Recipe,
    *,
    names: Collection[str] = (),
    samples: int | None = None,
    key_variable: str | None = None,
) -> Results:
    """A model's graded answers to the benchmarks of a recipe, as a run's screen would ask them.

    named: an API's address, or a checkpoint as `kascade serve` takes it. names: of benchmarks; none: all.
    samples: answers per task; None: as the recipe says. Raises UserError.
    """
    chosen = [one for one in recipe.benchmarks if not names or one.name in names]
    if unknown := sorted(set(names) - {one.name for one in chosen}):
        allowed = ", ".join(one.name for one in recipe.benchmarks)
        raise UserError(Fault("--benchmark", f"the recipe has no {', '.join(unknown)}", allowed))
    set_up_judge(recipe.judge, None)
    if is_endpoint(named):
        return Results.of(
            named, _of_endpoint(Endpoint.at(named, key_variable=key_variable), recipe, chosen, samples)
        )
    return Results.of(named, _of_checkpoint(named, recipe, chosen, samples))


def _of_endpoint(
    endpoint: Endpoint, recipe: Recipe, chosen: Sequence[Benchmark], samples: int | None
) -> Iterator[Answer]:
    _refuse_budgets(chosen)
    for one in chosen:
        if one.source.of_another_tool:
            yield from _by_tool_at(endpoint, recipe, one, samples)
            continue
        tasks = benchmark_tasks(one, recipe.seed)
        seed = draw_seed(recipe, one, Draw("screen"))
        for said in speak(endpoint, tasks, one.sampling, samples=_samples(recipe, one, samples), seed=seed):
            grade = said.grade
            reward = None if grade is None or grade.error else _scaled(one, grade.reward)
            yield Answer(one.name, said.task.id, said.number, reward, said.text, prompt_text(said.task))


def _refuse_budgets(chosen: Sequence[Benchmark]) -> None:
    """Raises UserError for benchmarks whose thinking an API would not end as a run does."""
    what = "an API takes no thinking budget, so its answers would not be those of a run"
    remedy = "name a checkpoint, or a recipe whose benchmark has none"
    faults = [
        Fault(f"benchmarks.{one.name}.sampling.thinking_budget", what, "null", remedy)
        for one in chosen
        if one.sampling.thinking_budget is not None and not one.source.of_another_tool
    ]
    if faults:
        raise UserError(faults)


def _by_tool_at(endpoint: Endpoint, recipe: Recipe, one: Benchmark, samples: int | None) -> Iterator[Answer]:
    asked = _asked_outside(recipe, one, samples, endpoint.model)
    options = asked.options
    if not isinstance(options, HarnessOptions) or not options.command:
        what = f"{one.source.environment} asks checkpoints, not addresses"
        remedy = "name a checkpoint, or run the tool itself on the address and compare its results"
        raise UserError(Fault(f"benchmark {one.name}", what, remedy=remedy))
    api = Api(str(endpoint.server.settings.url), endpoint.model, endpoint.key)
    for answer in answers_at(api, options, asked.words):
        yield replace(answer, benchmark=one.name, reward=_scaled(one, answer.reward))


def _of_checkpoint(
    named: str, recipe: Recipe, chosen: Sequence[Benchmark], samples: int | None
) -> Iterator[Answer]:
    from kascade.rollout.policy import Policy

    policy = Policy.load(checkpoint_folder(named), recipe.model)
    for one in chosen:
        for said in _answers(policy, recipe, one, samples, named):
            for sample, (reward, text) in enumerate(zip(said.rewards, said.answers, strict=True)):
                yield Answer(one.name, said.task_id, sample, _scaled(one, reward), text, said.prompt)


def _answers(
    policy: Policy, recipe: Recipe, one: Benchmark, samples: int | None, named: str
) -> list[TaskAnswers]:
    if one.source.of_another_tool:
        return ask_outside(policy, _asked_outside(recipe, one, samples, named))
    exam = Exam(
        sampling_params(one.sampling),
        _samples(recipe, one, samples),
        draw_seed(recipe, one, Draw("screen")),
        with_greedy=False,
        exactly=True,
    )
    tasks = benchmark_tasks(one, recipe.seed)
    with TemporaryDirectory(prefix="kascade-evaluate-") as folder:
        return exam.sit_and_keep(policy, tasks, Path(folder, "answers.jsonl"), one.keep_every, Clock())


def _asked_outside(recipe: Recipe, one: Benchmark, samples: int | None, named: str) -> Asked:
    seed = draw_seed(recipe, one, Draw("screen"))
    return Asked(one, named, short_hash(named), _samples(recipe, one, samples), seed)


def _samples(recipe: Recipe, one: Benchmark, asked: int | None) -> int:
    return 1 if one.is_fixed else asked or one.samples or recipe.guard.screen_samples


def _scaled(one: Benchmark, reward: float | None) -> float | None:
    low, high = one.reward_range
    return None if reward is None else (reward - low) / (high - low)


def write_results(path: Path, found: Results) -> None:
    """Keep results as JSON lines that `kascade compare` reads. Raises UserError for a file that is there."""
    if path.exists():
        raise UserError(Fault(str(path), "is there already", remedy="name another file"))
    lines = []
    for benchmark, rewards in found.benchmarks.items():
        for task, of_task in rewards.rewards.items():
            kept = {one.sample: one for one in found.answers.get((benchmark, task), [])}
            for sample, reward in enumerate(of_task):
                said = kept.get(sample)
                line = {"benchmark": benchmark, "task": task, "sample": sample, "reward": reward}
                lines.append({**line, "answer": said and said.text, "prompt": said and said.prompt})
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
