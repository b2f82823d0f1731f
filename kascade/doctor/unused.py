"""Fields that a recipe sets and that change nothing, because of another field.

They are warned of, not refused: who switches `asynchronous` off for a day may leave its correction in place.
A field counts as set where it is not at its default, so that a recipe that spells everything out is silent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from kascade.data.hub import HUB
from kascade.doctor.subject import Subject
from kascade.doctor.unused_pods import unused_by_pods
from kascade.environments import get_environment
from kascade.environments.outside.settings import LmEvalOptions
from kascade.errors import Fault
from kascade.models.precision import LOW
from kascade.recipe.approval import PROMOTION
from kascade.recipe.checks import Problem
from kascade.recipe.parts import DataSource, Optimizer
from kascade.recipe.schema import Benchmark, JudgeModel, ModelPart, Recipe
from kascade.recipe.workers import Workers

Path = tuple[str | int, ...]

OF_ROWS = (
    *("format", "layout", "columns", "join", "prompt", "system", "split", "subset", "turns", "hold_out"),
    *("on_bad_row", "max_bad_rows"),
)
OF_REQUESTS = (
    *("api_key_env", "timeout_s", "attempts", "backoff_s", "max_backoff_s", "concurrency"),
    *("requests_per_minute", "cache"),
)
OF_ACTORS = ("max_losses", "cpus", "gpus", "driver_cpus", "driver_gpus", "room_timeout_s")
OF_A_START = ("tensor_parallel_size", "gpu_memory_utilization")  # of vLLM
OF_OUR_ENGINE = ("temperature", "top_p", "top_k", "stop", "thinking_budget", "conversation")
OF_A_RECOVERY = (
    *("steps", "optimizer", "prompts_per_step", "rollouts_per_prompt", "full_vocabulary", "importance"),
    *("keep_weight", "workers"),
)


def unused(subject: Subject) -> list[Fault]:
    """Every field that is set and changes nothing, as a warning."""
    found = unused_fields(subject.recipe)
    return [Fault(subject.place(*one.path), one.what, one.allowed, one.remedy) for one in found]


def unused_fields(recipe: Recipe) -> Iterator[Problem]:
    """Every field that is set and changes nothing, with the field that would have to be another."""
    yield from _of_stages(recipe)
    for index, benchmark in enumerate(recipe.benchmarks):
        yield from _of_benchmark(("benchmarks", index), benchmark)
    yield from _of_model(recipe.model)
    yield from _of_guard(recipe)
    if recipe.judge is not None:
        yield from _of_judge(recipe.judge)
    yield from _of_promotion(recipe)
    yield from _of_money(recipe)
    yield from unused_by_pods(recipe)


def changed(
    part: BaseModel,
    names: Sequence[str],
    path: Path,
    why: str,
    remedy: str,
    *,
    usual: BaseModel | None = None,
) -> Iterator[Problem]:
    """Those of the fields that are not at their default. usual: the part by default where it is, too."""
    for name in names:
        plain = type(part).model_fields[name].get_default(call_default_factory=True)
        if getattr(part, name) not in (plain, getattr(usual, name, plain)):
            yield Problem((*path, name), f"changes nothing: {why}", remedy=remedy)


def _of_stages(recipe: Recipe) -> Iterator[Problem]:
    for index, stage in enumerate(recipe.stages):
        path: Path = ("stages", index)
        yield from _of_optimizer(stage, path)
        if stage.answers_by() is not None:
            yield from _of_workers(stage.actors(), (*path, "workers"))
        for number, mix in enumerate(stage.data):
            yield from _of_source(mix.source, (*path, "data", number, "source"))


def _of_optimizer(owner: BaseModel, path: Path) -> Iterator[Problem]:
    part: Optimizer = owner.optimizer  # type: ignore[attr-defined]
    if not part.warmup_steps:
        why, remedy = "there is no warm-up (warmup_steps is 0)", "set warmup_steps, or leave it out"
        usual = type(owner).model_fields["optimizer"].default
        yield from changed(part, ("warmup_start",), (*path, "optimizer"), why, remedy, usual=usual)


def _of_workers(part: Workers, path: Path) -> Iterator[Problem]:
    if not part.asynchronous:
        why = "no answer comes from older weights, as the workers are not asynchronous"
        remedy = "set asynchronous: true, or use grpo.correction (RL)"
        yield from changed(part, ("correction",), path, why, remedy)
    if not part.distributed:
        why = "one process trains and samples, so there are no actors"
        yield from changed(part, OF_ACTORS, path, why, "set trainers or samplers, or leave it out")


def _of_source(part: DataSource, path: Path, *, of_benchmark: bool = False) -> Iterator[Problem]:
    leave = "leave it out"
    if part.path is None:
        why = "it says how rows are read, and these tasks are generated (no path)"
        yield from changed(part, OF_ROWS, path, why, "name the rows as `path`, or leave it out")
        if of_benchmark:
            why, remedy = "a benchmark's own `tasks` says how many it asks", "set `tasks` of the benchmark"
            yield from changed(part, ("count",), path, why, remedy)
        return
    why = "it is of generated tasks, and these are read from rows"
    yield from changed(part, ("count", "levels"), path, why, leave)
    if not part.path.startswith(HUB):
        why = f"only a dataset of the hub ({HUB}OWNER/NAME) has subsets"
        yield from changed(part, ("subset",), path, why, "name the subset's own files as `path`")
    if part.on_bad_row == "stop":
        why = "on_bad_row is stop, so no bad row is left out"
        yield from changed(part, ("max_bad_rows",), path, why, "set on_bad_row: skip, or leave it out")


def _of_benchmark(path: Path, part: Benchmark) -> Iterator[Problem]:
    source, sampling = (*path, "source"), (*path, "sampling")
    if not part.source.of_another_tool:
        yield from _of_source(part.source, source, of_benchmark=True)
        return
    why = f"{part.source.environment} poses its own tasks and says itself how they are asked"
    of_source = (*OF_ROWS, "path", "count", "levels", "thinking", "mode")
    yield from changed(part.source, of_source, source, why, "use the tool's `options`")
    yield from changed(part, ("greedy", "keep_every"), path, why, "leave it out")
    if part.is_fixed:
        why = "its answers are always the same (options.sampled is false), and are asked for once"
        yield from changed(part, ("samples",), path, why, "set options.sampled: true, or leave it out")
    why = f"{part.source.environment} says itself how its answers are drawn"
    names: Sequence[str] = OF_OUR_ENGINE
    if get_environment(part.source.environment).options_type is LmEvalOptions:
        own = ("stop", "conversation", "max_new_tokens")
        names = (*OF_OUR_ENGINE, "max_new_tokens") if part.is_fixed else own
    yield from changed(part.sampling, names, sampling, why, "use the tool's `options`")


def _of_model(part: ModelPart) -> Iterator[Problem]:
    path, rollout = ("model",), part.rollout
    if part.precision not in LOW:
        why, remedy = "precision is neither fp8 nor nvfp4", "set model.precision, or leave it out"
        low = (*path, "low_precision")
        yield from changed(part.low_precision, ("high_precision_layers", "fp8_scaling"), low, why, remedy)
    elif part.precision == "nvfp4":
        why, remedy = "precision is nvfp4", "set model.precision: fp8, or leave it out"
        yield from changed(part.low_precision, ("fp8_scaling",), (*path, "low_precision"), why, remedy)
    here = (*path, "rollout")
    if rollout.engine == "native":
        names = (*OF_A_START, "max_model_len", "dtype", "canary")
        why, remedy = "the native engine samples", "set model.rollout.engine: vllm, or leave it out"
        yield from changed(rollout.vllm, names, (*here, "vllm"), why, remedy)
    else:
        why, remedy = "vLLM decides how many answers it computes at once", "leave it out"
        yield from changed(rollout, ("max_batch_rows",), here, why, remedy)
    if part.draft_tokens is not None:
        why = "with draft_tokens answers are sampled one by one"
        yield from changed(rollout, ("max_batch_rows",), here, why, "leave one of both out")
    served = rollout.vllm.served
    if rollout.engine == "vllm" and served is not None and served.url is not None:
        why = "the server at `url` was started by somebody else, who decides that"
        remedy = "start the server so, and leave it out here"
        yield from changed(rollout.vllm, OF_A_START, (*here, "vllm"), why, remedy)
        yield from changed(served, ("start_timeout_s",), (*here, "vllm", "served"), why, remedy)


def _of_guard(recipe: Recipe) -> Iterator[Problem]:
    guard, path = recipe.guard, ("guard",)
    recovery, there = guard.recovery, ("guard", "recovery")
    yield from _of_optimizer(recovery, there)
    if recovery.workers is not None:
        yield from _of_workers(recovery.workers, (*there, "workers"))
    if not recovery.rounds and guard.retention.on_loss != "recover":
        why = "nothing is recovered (rounds is 0, and retention.on_loss is not recover)"
        yield from changed(recovery, OF_A_RECOVERY, there, why, "set rounds, or leave it out")
        yield from changed(guard, ("first_share",), path, why, "set recovery.rounds, or leave it out")
    elif all(stage.answers_by() is not None for stage in recipe.stages):
        why = "every stage samples its own answers, and is recovered by its own `workers`"
        yield from changed(recovery, ("workers",), there, why, "set `workers` of the stages")
    if guard.unrecovered != "continue":
        why, remedy = f"unrecovered is {guard.unrecovered}, so no loss is let pass", "leave it out"
        yield from changed(guard, ("let_pass_budget",), path, why, remedy)
    if not any(stage.side_branch for stage in recipe.stages):
        yield from changed(guard, ("side_branches",), path, "no stage is a side branch", "leave it out")
    if not guard.within_share:
        why = "within_share is 0, so these very tasks have no test of their own"
        yield from changed(guard, ("within_margin",), path, why, "set within_share, or leave it out")


def _of_judge(part: JudgeModel) -> Iterator[Problem]:
    if part.url is None:
        why = "the judge is a checkpoint in this process, asked one question at a time"
        yield from changed(part, OF_REQUESTS, ("judge",), why, "name the `url` of an endpoint")


def _of_promotion(recipe: Recipe) -> Iterator[Problem]:
    """What speaks of a promotion. A person may promote in any case (`kascade promote`)."""
    approval = recipe.approval
    if not approval.before:
        why, remedy = "nothing waits (before is empty)", "name what waits under approval.before"
        yield from changed(approval, ("timeout", "on_timeout"), ("approval",), why, remedy)
    elif approval.timeout is None:
        why, remedy = "without a timeout it waits for good", "set approval.timeout"
        yield from changed(approval, ("on_timeout",), ("approval",), why, remedy)
    if recipe.tracking.promote_as is not None:
        return
    why, remedy = "this run promotes nothing (tracking.promote_as)", "set tracking.promote_as"
    if PROMOTION in approval.before:
        here = ("approval", "before", approval.before.index(PROMOTION))
        yield Problem(here, f"changes nothing: {why}", remedy=remedy)


def _of_money(recipe: Recipe) -> Iterator[Problem]:
    prices, budget = recipe.prices, recipe.budget
    if prices.accelerator_hour is None and prices.cpu_hour is None:
        why, remedy = "nothing has a price", "set prices.accelerator_hour or prices.cpu_hour"
        yield from changed(prices, ("currency",), ("prices",), why, remedy)
    if recipe.budget_cpu_hours is not None and budget.cpu_hours not in (None, recipe.budget_cpu_hours):
        why, remedy = "budget.cpu_hours counts, its present name", "leave the earlier name out"
        yield from changed(recipe, ("budget_cpu_hours",), (), why, remedy)
