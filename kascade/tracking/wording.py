"""What a run comes to, in sentences that are exactly true; shared by report, model card and `explain`."""

from __future__ import annotations

from collections.abc import Mapping

from kascade.guard.comparison import WORDS
from kascade.guard.end_check import sentences
from kascade.guard.lineage import OutcomeDecision
from kascade.guard.verdict import BenchmarkVerdict
from kascade.recipe.schema import DataSource, Stage
from kascade.tracking.promote import promotion_sentences
from kascade.tracking.retrain import why
from kascade.tracking.summary import AttemptSummary, Recovered, RunSummary, StageSummary

OUTCOME_WORDS: Mapping[OutcomeDecision, str] = {
    "accepted": "accepted",
    "recovered": "accepted after recovery",
    "continued": "continued with a loss",
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
        f"{done}. Of {compared}, {up} ended above the base model and {down} below it. For {level} the 95% "
        f"interval of the change contains zero."
    )


def status(summary: RunSummary) -> str:
    """How the run ended, or that it has not."""
    total, settled = len(summary.stages), len(summary.settled)
    if summary.status == "complete":
        return f"Complete: all {count(total, 'stage')} settled."
    if (held_up := _held_up(summary)) is not None:
        return held_up
    if summary.status == "stopped":
        stage = next(s for s in summary.stages if s.outcome and s.outcome.decision == "stopped")
        reasons = stage.outcome.reasons if stage.outcome else ()
        return f"Stopped by the guard in {stage.title}: {' '.join(reasons)}"
    left = f"{settled} of {count(total, 'stage')} settled"
    if summary.failure and summary.status == "failed":
        if summary.base is None:
            return f"Failed in {summary.failure.step}, before anything was trained."
        return f"Failed in {summary.failure.step} ({left}). {summary.failure.kind}: {summary.failure.message}"
    return f"Not finished: {left}. The run was interrupted or is still running; the same command resumes it."


def _held_up(summary: RunSummary) -> str | None:
    """Why a run ended before its end without an error: nothing changed, or it waits."""
    if summary.retrain is not None and not summary.retrain.train:
        return why(summary.retrain)
    if summary.waiting is not None:
        return f"{summary.waiting.word.capitalize()}: {summary.waiting.sentence}"
    return None


def guard_sentences(summary: RunSummary) -> list[str]:
    """What the guard found and did: one sentence per loss, or that there was none, and the end check's."""
    judged = [attempt for attempt in summary.current if attempt.verdict]
    trained = [why(summary.retrain)] if summary.retrain else []
    if not judged:
        return [*trained, "No checkpoint has been judged yet."]
    found = [regression(one) for one in summary.regressions()]
    none = f"No loss was shown in {count(len(judged), 'judged checkpoint')}, so no recovery was needed."
    unknown = [
        f"{attempt.id}: {name} cannot be judged, because grades are missing."
        for attempt in judged
        for name in (attempt.verdict.not_judged if attempt.verdict else ())
    ]
    ended = [*end_sentences(summary), *promotion_sentences(summary.promotion), *approval_sentences(summary)]
    return [*trained, *(found or [none]), *unknown, *ended]


def approval_sentences(summary: RunSummary) -> list[str]:
    """Who let what begin, or did not, and when."""
    return [
        f"Before {question.before}: {'approved' if said.approved else 'rejected'} by {said.by} at {said.at}"
        + (f" ({said.reason})." if said.reason else ".")
        for question in summary.questions
        for said in question.decisions
    ]


def end_sentences(summary: RunSummary) -> list[str]:
    """What the end check says of the final checkpoint; [] before there is one."""
    if summary.end_verdict is None:
        return []
    return [f"End check: {sentence}" for sentence in sentences(summary.end_verdict)]


def word(found: BenchmarkVerdict) -> str:
    """kept, lost, not shown or cannot be judged."""
    return WORDS[found.word]


def regression(one: Recovered) -> str:
    """One loss, who caused it, and what became of it."""
    cause = one.stage.title
    if one.cause != "train":
        cause = f"Recovery {one.cause.removeprefix('recover-')} after {cause}"
    fell = f"{cause} made {one.benchmark} fall from {one.before:.3f} to {one.low:.3f}"
    outcome = one.stage.outcome
    ended = f" The stage was {_ended(outcome.decision)}." if outcome else " The stage is not settled yet."
    if outcome and outcome.decision == "continued" and one.standing == "kept":
        ended = ""  # what the stage was continued with is the loss of another benchmark
    if one.after is None:
        return f"{fell}; no recovery of it was judged.{ended}"
    result = {
        "kept": "kept: shown to be back within the margin",
        "lost": "still lost: the recovery failed",
        "not_shown": "not shown to be back",
        "not_judged": "which cannot be judged, because grades are missing",
    }[one.standing]
    share = "" if one.fraction is None else f" ({_back(one)})"
    return f"{fell}; after recovery it stood at {one.after:.3f}{share}, {result}.{ended}"


def _back(one: Recovered) -> str:
    fraction = one.fraction or 0.0
    share = f"{percent(fraction) if round(fraction, 2) > 0 else 'none'} of the loss is back"
    if one.fresh is None or one.fresh.interval is None:
        return share
    low, high = one.fresh.interval
    return f"{share}; 95%: {percent(low)} to {percent(high)}"


def _ended(decision: OutcomeDecision) -> str:
    return {
        "accepted": "accepted",
        "recovered": "accepted",
        "continued": "continued with the loss, as the recipe says",
        "rolled_back": "rolled back to the checkpoint before it",
        "stopped": "stopped",
    }[decision]


def goal_sentence(stage: StageSummary) -> str | None:
    """Whether a stage raised what it was to raise; None when that was not judged."""
    verdict = next((a.verdict for a in reversed(stage.attempts) if a.verdict), None)
    rises = {name: b.rise for name, b in verdict.benchmarks.items() if b.rise} if verdict else {}
    if not rises:
        return None
    parts = [
        f"{name} {rise.before.mean:.3f} to {rise.after:.3f} ({'risen' if rise.met else 'no rise shown'})"
        for name, rise in rises.items()
    ]
    return "Goals: " + ", ".join(parts) + "."


def data_of(part: Stage) -> str:
    """What a stage learns from."""
    drawn = f"{part.steps} steps of {part.batch_words}"
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


def loading(attempt: AttemptSummary) -> str:
    """How to load a checkpoint, and to serve it; paths are relative to the run's folder."""
    folder = f"checkpoints/{attempt.id}"
    if attempt.manifest.base is not None:
        return _loading_adapter(folder)
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{folder}")\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}")\n\n'
        "# as a server with the OpenAI protocol:\n"
        f"# kascade serve {folder}\n"
        "# or, for an architecture that vLLM knows:\n"
        f"# vllm serve {folder}"
    )


def _loading_adapter(folder: str) -> str:
    """Of an adapter: through Kascade, which knows its base, or as a whole model for other tools."""
    return (
        "# this checkpoint is an adapter; its base is named in its manifest.json\n"
        f"# kascade serve {folder}\n"
        "# as a whole model for other tools:\n"
        f"# kascade export {folder} my-model\n\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'model = AutoModelForCausalLM.from_pretrained("my-model")\n'
        'tokenizer = AutoTokenizer.from_pretrained("my-model")'
    )
