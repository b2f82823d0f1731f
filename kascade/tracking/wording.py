"""What a run comes to, in sentences that are exactly true; shared by report, model card and `explain`."""

from __future__ import annotations

from collections.abc import Mapping

from kascade.guard.lineage import OutcomeDecision
from kascade.recipe.schema import DataSource, MOPDStage, RLHFStage, RLStage, SFTStage, Stage
from kascade.tracking.summary import Attempt, Recovered, RunSummary, StageSummary

OUTCOME_WORDS: Mapping[OutcomeDecision, str] = {
    "accepted": "accepted",
    "recovered": "accepted after recovery",
    "continued": "continued with a regression",
    "rolled_back": "rolled back",
    "stopped": "stopped",
}


def headline(summary: RunSummary) -> str:
    """What was trained and whether it worked, in one sentence."""
    what = summary.recipe.model.source if summary.recipe else "A model"
    if not summary.stages:
        return f"{what}: nothing is known of its stages, because the run holds no readable recipe."
    done = f"{what} went through {len(summary.settled)} of {count(len(summary.stages), 'stage')}"
    if not summary.changes:
        return f"{done}; there are no scores yet of both the base and a later checkpoint to compare."
    up, down = (sum(change.direction == way for change in summary.changes) for way in ("up", "down"))
    level = len(summary.changes) - up - down
    compared = count(len(summary.changes), "benchmark")
    return (
        f"{done}: of {compared}, {up} ended higher than the base model beyond their 95% interval, "
        f"{down} lower, and {level} neither."
    )


def status(summary: RunSummary) -> str:
    """How the run ended, or that it has not."""
    total, settled = len(summary.stages), len(summary.settled)
    if summary.status == "complete":
        return f"Complete: all {count(total, 'stage')} settled."
    if summary.status == "stopped":
        stage = next(s for s in summary.stages if s.outcome and s.outcome.decision == "stopped")
        reasons = stage.outcome.reasons if stage.outcome else ()
        return f"Stopped by the guard in {stage.title}: {' '.join(reasons)}"
    left = f"{settled} of {count(total, 'stage')} settled"
    if summary.failure and summary.status == "failed":
        return f"Failed in {summary.failure.step} ({left}). {summary.failure.kind}: {summary.failure.message}"
    return f"Not finished: {left}. The run was interrupted or is still going on; the same command resumes it."


def guard_sentences(summary: RunSummary) -> list[str]:
    """What the guard found and did: one sentence a regression, or that there was none."""
    judged = [attempt for attempt in summary.current if attempt.verdict]
    if not judged:
        return ["No checkpoint has been judged yet."]
    found = summary.regressions()
    if not found:
        return [
            f"No benchmark fell beyond chance in any of {count(len(judged), 'judged checkpoint')}, "
            "so no recovery was needed."
        ]
    return [regression(one) for one in found]


def regression(one: Recovered) -> str:
    """One regression and what became of it."""
    fell = f"{one.stage.title} made {one.benchmark} fall from {one.before:.3f} to {one.low:.3f}"
    outcome = one.stage.outcome
    ended = f" The stage was {_ended(outcome.decision)}." if outcome else " The stage is not settled yet."
    if one.after is None:
        return f"{fell}; no recovery of it was judged.{ended}"
    share = "" if one.fraction is None else f" ({_back(one.fraction)} of the loss is back)"
    result = "still a regression: the recovery failed" if one.still_regressed else "no longer a regression"
    return f"{fell}; after recovery it stood at {one.after:.3f}{share}, {result}.{ended}"


def _back(fraction: float) -> str:
    return percent(fraction) if round(fraction, 2) > 0 else "none"


def _ended(decision: OutcomeDecision) -> str:
    return {
        "accepted": "accepted",
        "recovered": "accepted",
        "continued": "continued with the regression, as the recipe says",
        "rolled_back": "rolled back to the checkpoint it started from",
        "stopped": "stopped",
    }[decision]


def goal_sentence(stage: StageSummary) -> str | None:
    """Whether a stage raised what it was to raise; None when that was not judged."""
    verdict = next((a.verdict for a in reversed(stage.attempts) if a.verdict), None)
    rises = {name: b.rise for name, b in verdict.benchmarks.items() if b.rise} if verdict else {}
    if not rises:
        return None
    parts = [
        f"{name} {rise.before.mean:.3f} to {rise.after:.3f} ({'risen' if rise.met else 'no proven rise'})"
        for name, rise in rises.items()
    ]
    return "Goals: " + ", ".join(parts) + "."


def data_of(part: Stage) -> str:
    """What a stage learns from."""
    drawn = f"{part.steps} steps"
    if isinstance(part, RLStage | MOPDStage | RLHFStage):
        drawn += f" of {part.prompts_per_step} prompts, {part.rollouts_per_prompt} rollouts each"
    elif isinstance(part, SFTStage):
        drawn += f" of {part.batch_size} demonstrations"
    total = sum(mix.weight for mix in part.data)
    mixes = [f"{percent(mix.weight / total)} {_source(mix.source)}" for mix in part.data]
    return f"{drawn}: {', '.join(mixes)}"


def _source(source: DataSource) -> str:
    origin = "own rows" if source.path else f"{source.count} generated tasks"
    return f"{source.environment} ({origin})"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 60 else f"{minutes / 60:.1f} h"


def time_sentence(summary: RunSummary) -> str | None:
    """Time and CPU in all, and the share outside sampling, training and grading; None without costs."""
    wall = sum(cost.wall_s for cost in summary.costs)
    if not wall:
        return None
    other = sum(cost.other_s for cost in summary.costs) / wall
    cpu, peak = sum(c.cpu_s for c in summary.costs), max(c.peak_memory_bytes for c in summary.costs)
    return (
        f"{duration(wall)} of steps, {duration(cpu)} of CPU, at most {peak / 2**30:.2f} GiB of memory in a "
        f"step; {percent(other)} of the time went outside sampling, training and grading."
    )


def error_count(summary: RunSummary) -> tuple[int, int]:
    """Answers that could not be graded, and all answers, over the run's current checkpoints."""
    points = [point for attempt in summary.current for point in attempt.points.values()]
    return sum(p.score.num_errors for p in points), sum(p.num_answers for p in points)


def loading(attempt: Attempt) -> str:
    """How to load a checkpoint, and to serve it; paths are relative to the run's folder."""
    folder = f"checkpoints/{attempt.id}"
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{folder}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n\n'
        "# as a server with the OpenAI protocol, where transformers' serving extra is installed:\n"
        f"# transformers serve {folder}\n"
        "# or, for an architecture that vLLM knows:\n"
        f"# vllm serve {folder}"
    )
