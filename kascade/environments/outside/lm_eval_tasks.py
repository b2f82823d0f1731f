"""Tasks of lm-eval, loaded and checked before anything is asked."""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kascade.environments.outside.settings import LmEvalOptions

GREEDY = ("loglikelihood", "loglikelihood_rolling", "multiple_choice")  # kinds that draw nothing


class LmEvalError(Exception):
    """lm-eval, or the task, cannot be used here."""


@lru_cache(maxsize=32)
def load_lm_eval_tasks(options: LmEvalOptions) -> dict[str, Any]:
    """lm-eval's task objects by name: one, or all of a group. Raises LmEvalError."""
    if find_spec("lm_eval") is None:
        raise LmEvalError("lm-eval is not installed: pip install 'kascade[lm-eval]'")
    if options.include is not None and not Path(options.include).is_dir():
        raise LmEvalError(f"include: {options.include!r} is no folder")
    try:
        found: dict[str, Any] = lm_eval_tasks_of(options).load([options.task])["tasks"]
    except Exception as error:  # unknown names, task files and data sets fail in many ways
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise LmEvalError(f"the task {options.task!r} cannot be loaded: {reason}") from error
    for name, task in found.items():
        _check(name, task, options)
    return found


def lm_eval_tasks_of(options: LmEvalOptions) -> Any:
    """lm-eval's list of tasks in which to look for the one that is meant.

    Its own list is made of thousands of files, which takes seconds: a task of the user's folder needs none.
    """
    if options.include is not None:
        own = _listed(options.include, with_own=False)
        if options.task in own.all_tasks:
            return own
    return _listed(options.include, with_own=True)


@lru_cache(maxsize=8)
def _listed(include: str | None, *, with_own: bool) -> Any:
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include, include_defaults=with_own)


def _check(name: str, task: Any, options: LmEvalOptions) -> None:
    """Raises LmEvalError where the options do not suit the task."""
    config = task.config
    draws = config.output_type not in GREEDY
    asked = config.generation_kwargs or {}
    random = bool(asked.get("do_sample")) and float(asked.get("temperature") or 1.0) > 0
    if options.sampled and not draws:
        raise LmEvalError(f"{name} compares log-likelihoods and draws nothing: leave out `sampled`")
    if random and not options.sampled:
        raise LmEvalError(f"{name} draws its answers at random: say `sampled: true`")
    filters = [one.name for one in getattr(task, "_filters", [])]
    if len(filters) > 1 and options.filter is None:
        raise LmEvalError(f"{name} has several filters ({', '.join(filters)}): name one as `filter`")
    if options.filter is not None and options.filter not in filters:
        raise LmEvalError(f"{name} has no filter {options.filter!r} (it has: {', '.join(filters)})")
    if getattr(task, "UNSAFE_CODE", False) and not options.unsafe_code:
        raise LmEvalError(f"{name} runs what the model writes without a sandbox: say `unsafe_code: true`")
