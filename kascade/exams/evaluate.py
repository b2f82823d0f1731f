"""Exams of one checkpoint: all benchmarks screened, the suspicious ones confirmed on both sides."""

from __future__ import annotations

import ctypes
import os
import shutil
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
from kascade.exams.exams import Draw, known_score, score_benchmark
from kascade.guard.lineage import open_reference, same_model
from kascade.guard.ruling import Case, open_case
from kascade.guard.scores import all_scores, answers_path
from kascade.recipe.schema import Benchmark, ModelPart
from kascade.rollout.policy import Policy
from kascade.run.context import Run, digest_of

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Wanted:
    """Answers that must be there: of which checkpoint (reference), on which benchmark, of which draw."""

    reference: str
    benchmark: str
    draw: Draw


def screen_all(run: Run, reference: str) -> None:
    """Screen a checkpoint on every benchmark of the recipe; scores on disk are not drawn again."""
    score_by(run, reference, [benchmark.name for benchmark in run.recipe.benchmarks], Draw("screen"))


def grade_again_unjudged(run: Run, names: Collection[str], others: Iterable[str] = ()) -> None:
    """Ask for every missing grade on the named benchmarks again, of all checkpoints of the folder, and of
    `others` (references) that answered in it.

    For those that could not be judged: with a repaired grader they can. Both sides count, so both are graded,
    also where few grades are missing. Screening scores come first: fixed answers are copied from them.
    """
    known = [str(ref) for ref, _ in run.layout.checkpoints()] if names else []
    references = {digest_of(one): one for one in (*others, *known)}
    scores = [
        score
        for score in (all_scores(run.layout) if names else ())
        if score.benchmark in names and score.missing and score.checkpoint in references
    ]
    for screen in (True, False):
        wanted = [
            Wanted(references[one.checkpoint], one.benchmark, Draw(one.phase, one.round, one.num_samples))
            for one in scores
            if (one.phase == "screen") == screen and one.draws == "shared"
        ]
        _draw(run, wanted)


def confirm_suspicious(run: Run, reference: str, parent: str) -> None:
    """Fresh samples of the checkpoint and of its baselines, on the benchmarks the screen found suspicious.

    They are drawn look by look, until each benchmark is decided. A baseline's answers are a pool: drawn when
    they are first needed, kept, and used by every later verdict of that round, which says so. Those that the
    baseline was itself judged by are not used again (`Case.draw`).
    """
    case = open_case(run.layout, run.recipe, reference, parent)
    pending = case.suspicious()
    while needed := case.next_looks(pending):
        wanted = [
            Wanted(one, name, Draw("confirm", case.draw(name), size))
            for name, size in needed.items()
            for one in (reference, pending[name].reference)
        ]
        score_all(run, wanted)
        pending = {name: pending[name] for name in needed}
    _draw_lost_again(run, case)


def _draw_lost_again(run: Run, case: Case) -> None:
    """Fresh samples of the checkpoints that lost something: what is back is measured on these."""
    found = {name: case.looked(name) for name in case.known_lost}
    wanted = [
        Wanted(case.known_lost[name].reference, name, Draw("confirm", case.draw(name), one.size))
        for name, one in found.items()
        if one is not None and one.size
    ]
    score_all(run, wanted)


def score_by(run: Run, reference: str, names: Collection[str], draw: Draw) -> None:
    """Score the checkpoint on the named benchmarks."""
    score_all(run, [Wanted(reference, one.name, draw) for one in run.recipe.benchmarks if one.name in names])


def score_all(run: Run, wanted: Iterable[Wanted]) -> None:
    """Draw all that is wanted and not there yet, spread over `exam_processes` processes.

    Small models leave most of a core idle between operations, so two processes of one thread each finish
    far sooner than one process of two. Every draw has its own seed: the scores are the same either way.
    One checkpoint follows the other, so that each process loads each of them once. What an equal parent has
    answered is not drawn again.
    """
    _draw(run, [one for one in wanted if _is_missing(run, one)])


def _draw(run: Run, wanted: Iterable[Wanted]) -> None:
    pending = sorted(dict.fromkeys(wanted), key=lambda one: one.reference)
    if not pending:
        return
    for one in pending:
        _take_over(run, one)
    folders = {one: run.open_verified(one) for one in dict.fromkeys(one.reference for one in pending)}
    exams = [_Sitting(run, folders[one.reference], one) for one in pending]
    processes = min(run.recipe.exam_processes, len(exams))
    with ExitStack() as stack:
        done: Iterable[tuple[float, dict[str, float]]] = map(_Sitting.sit, exams)
        if processes > 1:
            fork = get_context("fork")
            pool = ProcessPoolExecutor(processes, fork, _one_thread, (os.getpid(),))
            done = stack.enter_context(pool).map(_Sitting.sit, exams)
        for number, (mean, sections) in enumerate(done, start=1):
            for section, seconds in sections.items():
                run.clock.sections[section] += seconds / processes
            run.progress.update(number, len(exams), "benchmarks", reward=mean)


def _take_over(run: Run, one: Wanted) -> None:
    """The answers of the parent, where that is the same model: with the same random numbers they are its
    own."""
    own = open_reference(one.reference)
    if own.manifest.parent is None or _benchmark(run, one.benchmark).source.of_another_tool:
        return
    parent = open_reference(own.manifest.parent)
    theirs, mine = (
        answers_path(run.layout, digest, one.benchmark, one.draw.phase, one.draw.round)
        for digest in (parent.digest, own.digest)
    )
    if same_model(own, parent) and theirs.is_file() and not mine.exists():
        mine.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(theirs, mine)


def _is_missing(run: Run, one: Wanted) -> bool:
    return known_score(run, _benchmark(run, one.benchmark), digest_of(one.reference), one.draw) is None


def _benchmark(run: Run, name: str) -> Benchmark:
    return next(one for one in run.recipe.benchmarks if one.name == name)


@dataclass(slots=True)
class _Sitting:
    """One draw to make; the model in `folder` is loaded with its first, in each process once."""

    run: Run
    folder: Path
    wanted: Wanted

    def sit(self) -> tuple[float, dict[str, float]]:
        """The mean score of the benchmark, and the seconds it took by section."""
        clock, one = Clock(), self.wanted
        with clock.section("loading"):
            policy = _load(self.folder, self.run.recipe.model)
        run, benchmark = replace(self.run, clock=clock), _benchmark(self.run, one.benchmark)
        score = score_benchmark(run, policy, benchmark, digest_of(one.reference), one.draw)
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
