"""Benchmarks of other tools, by name. `kascade.exams.outside` runs them against a checkpoint."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from typing import ClassVar

from kascade.environments.base import Environment
from kascade.environments.outside.lm_eval_tasks import LmEvalError, load_lm_eval_tasks
from kascade.environments.outside.settings import HarnessOptions, LmEvalOptions, OutsideOptions
from kascade.task import Grade, Task


class OutsideBenchmark(Environment):
    """A benchmark of another tool."""

    domain = "knowledge"
    options_type: ClassVar[type[OutsideOptions]] = OutsideOptions

    def pose(self, rng: random.Random, level: float) -> Task:
        raise ValueError(f"{self.name} is a benchmark of another tool, which poses the tasks itself")

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return [Grade.failed(f"{self.name}: only the tool itself grades answers") for _ in answers]


class LmEval(OutsideBenchmark):
    """A task of lm-eval, answered by a checkpoint in this process: texts, log-likelihoods, choices."""

    name = "lm_eval"
    options_type = LmEvalOptions

    def needs(self) -> list[str]:
        """Why the task cannot be asked; empty when it loads."""
        try:
            load_lm_eval_tasks(LmEvalOptions.of(self.options))
        except (LmEvalError, ValueError) as error:
            return [str(error)]
        return []


class Harness(OutsideBenchmark):
    """Any other tool, run against the served checkpoint; or the results that it has written elsewhere."""

    name = "harness"
    options_type = HarnessOptions

    def needs(self) -> list[str]:
        """Whether the command is there."""
        command = HarnessOptions.of(self.options).command
        if command and shutil.which(command[0]) is None:
            return [f"the command {command[0]!r} is not there"]
        return []
