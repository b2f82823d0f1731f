"""Which of the kept answers a reader is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from kascade.tracking.reading import ShownAnswer
from kascade.tracking.summary import RunSummary, StageSummary

PER_SIDE = 2  # good and bad answers shown of each benchmark


@dataclass(frozen=True, slots=True)
class BeforeAndAfter:
    """The final checkpoint's answer to a task, beside the base model's to the same task where it was kept."""

    base: ShownAnswer | None
    final: ShownAnswer


def before_and_after(summary: RunSummary, benchmark: str) -> list[BeforeAndAfter]:
    """The final checkpoint's best answers and its worst, by reward; the first kept of equals."""
    if summary.final is None or summary.base is None:
        return []
    earlier = {a.task_id: a for a in sampled(summary, summary.base.digest, benchmark)}
    kept = sampled(summary, summary.final.digest, benchmark)
    graded = sorted((a for a in kept if a.reward is not None), key=lambda a: -(a.reward or 0.0))
    chosen = [*graded[:PER_SIDE], *graded[PER_SIDE:][-PER_SIDE:]]
    return [BeforeAndAfter(earlier.get(answer.task_id), answer) for answer in chosen]


def sampled(summary: RunSummary, digest: str, benchmark: str) -> list[ShownAnswer]:
    return [a for a in summary.answers.get((digest, benchmark), ()) if not a.greedy]


def highest_rewards(summary: RunSummary, stage: StageSummary) -> list[tuple[str, ShownAnswer]]:
    """(benchmark, answer) of the highest rewards of a stage's trained checkpoint, where a hack would show.

    Rewards are often equal, so the answers of the most unusual length among the highest come first:
    a hack tends to be far shorter or longer than an honest answer.
    """
    if not stage.attempts:
        return []
    digest = stage.attempts[0].digest
    found = []
    for benchmark in stage.goals:
        graded = [a for a in sampled(summary, digest, benchmark) if a.reward is not None]
        found += [(benchmark, answer) for answer in _unusual_first(graded)[:PER_SIDE]]
    return found


def _unusual_first(answers: Sequence[ShownAnswer]) -> list[ShownAnswer]:
    if not answers:
        return []
    usual = median(len(answer.answer) for answer in answers)
    return sorted(answers, key=lambda a: (-(a.reward or 0.0), -abs(len(a.answer) - usual)))


def failed(summary: RunSummary) -> list[tuple[str, str, ShownAnswer]]:
    """(checkpoint id, benchmark, answer) of the kept answers whose grader failed."""
    ids = {attempt.digest: attempt.id for attempt in summary.current}
    return [
        (ids[digest], benchmark, answer)
        for (digest, benchmark), answers in summary.answers.items()
        for answer in answers
        if digest in ids and answer.error is not None
    ]
