"""Exams of one checkpoint: all benchmarks screened, the suspicious ones confirmed on both sides."""

from __future__ import annotations

from kascade.guard.judge import open_case
from kascade.guard.scores import Phase
from kascade.stages.context import Run, digest_of
from kascade.stages.exams import known_score, score_benchmark
from kascade.stages.job import Policy


def screen_all(run: Run, reference: str) -> None:
    """Screen a checkpoint on every benchmark of the recipe; scores on disk are not drawn again."""
    names = [benchmark.name for benchmark in run.recipe.benchmarks]
    _score(run, reference, names, "screen", 0)


def confirm_suspicious(run: Run, reference: str, parent: str) -> None:
    """Fresh samples of the checkpoint and of its baselines, on the benchmarks the screen found suspicious."""
    case = open_case(run.layout.root, run.recipe, reference, parent)
    by_baseline: dict[str, list[str]] = {}
    for name, baseline in case.suspicious().items():
        by_baseline.setdefault(baseline.reference, []).append(name)
    suspicious = [name for names in by_baseline.values() for name in names]
    _score(run, reference, suspicious, "confirm", case.round)
    for baseline_reference, names in by_baseline.items():
        _score(run, baseline_reference, names, "confirm", case.round)


def _score(run: Run, reference: str, names: list[str], phase: Phase, draw: int) -> None:
    digest = digest_of(reference)
    benchmarks = [one for one in run.recipe.benchmarks if one.name in names]
    pending = [one for one in benchmarks if known_score(run, one, digest, phase, draw) is None]
    if not pending:
        return
    folder = run.open_verified(reference)
    with run.clock.section("loading"):
        policy = Policy.load(folder, run.recipe.model)
    for done, benchmark in enumerate(pending, start=1):
        score = score_benchmark(run, policy, benchmark, digest, phase=phase, draw=draw)
        run.progress.update(done, len(pending), "benchmarks", reward=score.mean)
