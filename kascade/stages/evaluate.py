"""Exams of one checkpoint: all benchmarks screened, the suspicious ones confirmed on both sides."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Collection, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import torch

from kascade.clock import Clock
from kascade.guard.judge import open_case
from kascade.guard.scores import Phase
from kascade.recipe.schema import Benchmark, ModelPart
from kascade.stages.context import Run, digest_of
from kascade.stages.exams import known_score, score_benchmark
from kascade.stages.job import Policy

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def screen_all(run: Run, reference: str) -> None:
    """Screen a checkpoint on every benchmark of the recipe; scores on disk are not drawn again."""
    score_by(run, reference, [benchmark.name for benchmark in run.recipe.benchmarks], "screen")


def confirm_suspicious(run: Run, reference: str, parent: str) -> None:
    """Fresh samples of the checkpoint and of its baselines, on the benchmarks the screen found suspicious."""
    case = open_case(run.layout.root, run.recipe, reference, parent)
    by_baseline: dict[str, list[str]] = {}
    for name, baseline in case.suspicious().items():
        by_baseline.setdefault(baseline.reference, []).append(name)
    suspicious = [name for names in by_baseline.values() for name in names]
    score_by(run, reference, suspicious, "confirm", case.round)
    for baseline_reference, names in by_baseline.items():
        score_by(run, baseline_reference, names, "confirm", case.round)


def score_by(run: Run, reference: str, names: Collection[str], phase: Phase, draw: int = 0) -> None:
    """Score the checkpoint on the named benchmarks, spread over `exam_processes` processes.

    Small models leave most of a core idle between operations, so two processes of one thread each finish
    far sooner than one process of two. Every draw has its own seed: the scores are the same either way.
    """
    digest = digest_of(reference)
    benchmarks = [one for one in run.recipe.benchmarks if one.name in names]
    pending = [one for one in benchmarks if known_score(run, one, digest, phase, draw) is None]
    if not pending:
        return
    exam = _Exam(run, run.open_verified(reference), digest, phase, draw)
    processes = min(run.recipe.exam_processes, len(pending))
    with ExitStack() as stack:
        sit: Iterable[tuple[float, dict[str, float]]] = map(exam.sit, pending)
        if processes > 1:
            fork = get_context("fork")
            pool = ProcessPoolExecutor(processes, fork, _one_thread, (os.getpid(),))
            sit = stack.enter_context(pool).map(exam.sit, pending)
        for done, (mean, sections) in enumerate(sit, start=1):
            for section, seconds in sections.items():
                run.clock.sections[section] += seconds / processes
            run.progress.update(done, len(pending), "benchmarks", reward=mean)


@dataclass(slots=True)
class _Exam:
    """One checkpoint's exams of one phase; the model is loaded with the first, in each process once."""

    run: Run
    folder: Path
    digest: str
    phase: Phase
    draw: int

    def sit(self, benchmark: Benchmark) -> tuple[float, dict[str, float]]:
        """The mean score of a benchmark, and the seconds it took by section."""
        clock = Clock()
        with clock.section("loading"):
            policy = _load(self.folder, self.run.recipe.model)
        mine = replace(self.run, clock=clock)
        score = score_benchmark(mine, policy, benchmark, self.digest, phase=self.phase, draw=self.draw)
        return score.mean, dict(clock.sections)


@lru_cache(maxsize=1)
def _load(folder: Path, part: ModelPart) -> Policy:
    return Policy.load(folder, part)


def _one_thread(parent: int) -> None:
    """Set up an exam's process: one thread of its own, and an end when the step's process ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the request was made
        os.kill(os.getpid(), signal.SIGKILL)
    torch.set_num_threads(1)
