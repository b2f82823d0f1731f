"""lm-eval, run in this process on a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kascade.environments.outside.lm_eval_tasks import LmEvalError, lm_eval_tasks_of, load_lm_eval_tasks
from kascade.environments.outside.settings import LmEvalOptions
from kascade.errors import Fault, UserError
from kascade.exams.answers import TaskAnswers
from kascade.results.outside import lm_eval_answer
from kascade.rollout.types import SamplingParams

if TYPE_CHECKING:
    from kascade.exams.lm_eval_model import PolicyLM
    from kascade.rollout.policy import Policy


def lm_eval_answers(
    policy: Policy,
    options: LmEvalOptions,
    *,
    tasks: int,
    params: SamplingParams,
    samples: int,
    seed: int,
) -> list[TaskAnswers]:
    """Every document of a task, answered and graded as lm-eval does. tasks: documents of each task at most.

    Raises UserError where the task cannot be loaded, or its metric cannot be a reward.
    """
    try:
        known = load_lm_eval_tasks(options)
    except LmEvalError as error:
        raise UserError(Fault("lm_eval", str(error))) from error
    from kascade.exams.lm_eval_model import Drawing, PolicyLM

    model = PolicyLM(policy, Drawing(params, samples, seed, options.sampled, options.max_gen_toks))
    found: dict[str, list[TaskAnswers]] = {}
    for model.sample in range(samples):
        for one in _one_round(model, options, known, tasks):
            found.setdefault(one.task_id, []).append(one)
    return [_joined(of_task) for of_task in found.values()]


def _one_round(
    model: PolicyLM, options: LmEvalOptions, known: Mapping[str, Any], tasks: int
) -> Iterator[TaskAnswers]:
    from lm_eval import simple_evaluate

    done = simple_evaluate(
        model=model,
        tasks=list(known.values()),
        task_manager=lm_eval_tasks_of(options),
        num_fewshot=options.num_fewshot,
        limit=tasks,
        log_samples=True,
        bootstrap_iters=0,
        system_instruction=options.system,
        apply_chat_template=options.chat,
        confirm_run_unsafe_code=options.unsafe_code,
    )
    for name, rows in done["samples"].items():
        for row in rows:
            if options.filter in (None, row["filter"]):
                yield _answer(model, name, row, options.metric, prefixed=len(known) > 1)


def _answer(
    model: PolicyLM, task: str, row: Mapping[str, Any], metric: str | None, *, prefixed: bool
) -> TaskAnswers:
    read = lm_eval_answer(task, row, metric, f"lm-eval task {task}, document {row['doc_id']}")
    context, *rest = row["arguments"][0]
    said = model.said(context, rest[0]) if rest and isinstance(rest[0], dict) else None
    return TaskAnswers(
        task_id=f"{task}/{read.task}" if prefixed else read.task,
        greedy=False,
        prompt=str(context),
        answers=(said.text if said else str(read.text),),
        num_tokens=(said.num_tokens if said else 0,),
        truncated=(bool(said and said.truncated),),
        rewards=(read.reward,),
        components=({},),
        errors=(None,),
        several_turns=False,
    )


def _joined(answers: Sequence[TaskAnswers]) -> TaskAnswers:
    whole = answers[0]
    for later in answers[1:]:
        whole = whole.followed_by(later)
    return whole
