"""What Kubeflow's page of a run shows of a step: Markdown, and numbers that its compare view lines up."""

from __future__ import annotations

import html
from pathlib import Path

from kascade.guard.approval import Waiting
from kascade.guard.comparison import WORDS
from kascade.guard.lineage import own_outcomes
from kascade.guard.scores import read_scores
from kascade.guard.verdict import BenchmarkVerdict, Verdict
from kascade.recipe.plan import make_plan
from kascade.recipe.plan_words import PlanTable, forecast_table
from kascade.recipe.run_recipe import read_run_recipe
from kascade.storage.checkpoint import CheckpointRef
from kascade.storage.files import write_text
from kascade.storage.run_folder import RunFolder


def write(path: str, text: str) -> None:
    """Write an artifact's file."""
    write_text(Path(path), text)


def plan_markdown(run: str) -> str:
    """What the run is going to do: its stages, exams and the worst case."""
    plan = make_plan(read_run_recipe(Path(run)))
    rows = "\n".join(
        f"| {stage.title} | {stage.parent} | {stage.steps:,} | {stage.samples_per_step:,} "
        f"| {stage.tokens_per_step:,} | {', '.join(stage.environments)} |"
        for stage in plan.stages
    )
    costs = markdown_table(forecast_table(plan.forecast))
    exams = ", ".join(f"{exam.name} ({exam.tasks} tasks)" for exam in plan.exams)
    worst = plan.worst_case
    return f"""## {plan.recipe}, from {plan.model}

| stage | starts from | updates | samples each | tokens each, at most | learns on |
|---|---|---|---|---|---|
{rows}

Every checkpoint is measured on {exams}: {plan.answers_per_checkpoint:,} answers.
At worst {worst.recoveries} recoveries: {worst.steps:,} more updates, {worst.exam_answers:,} answers in all.

### What it takes: expected (low-high)

{costs}"""


def markdown_table(shown: PlanTable) -> str:
    """A table of words with its notes."""
    lines = [shown.head, ["---"] * len(shown.head), *shown.rows]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return table + "\n\n" + "".join(f"- {note}\n" for note in shown.notes)


def waiting_markdown(stage: str, waiting: Waiting | None) -> str:
    """Why a stage was not begun, and what a person can do on the run form."""
    if waiting is None:
        return f"## {stage} is left out, as the run form says\n"
    name = waiting.before
    remedy = {
        "waiting for approval": f"start a run of this folder with `approve` = `{name}` (or `reject {name}`)",
        "budget reached": "start a run of this folder with a larger `budget`",
        "rejected": f"start a run of this folder with `approve` = `{name}` to let it begin after all",
    }[waiting.word]
    until = f"\n\nWithout an answer the recipe decides at {waiting.until}." if waiting.until else ""
    return f"## {waiting.word.capitalize()}\n\n{waiting.sentence}\n\nTo continue: {remedy}.{until}\n"


def report_page(written: str) -> str:
    """The report, or preflight's error as a page where no run began."""
    text = Path(written).read_text(encoding="utf-8")
    return text if written.endswith(".html") else f"<pre>{html.escape(text)}</pre>"


def final_scores(run: str) -> dict[str, float]:
    """By benchmark the score of the checkpoint that the cascade came to; empty where it has none."""
    folder = RunFolder(Path(run))
    accepted = [one.accepted for one in own_outcomes(folder).values() if one.accepted]
    reached = folder.final_checkpoint() or (accepted[-1] if accepted else None)
    if reached is None:
        return {}
    found = read_scores(folder, CheckpointRef.parse(reached).digest, "screen")
    return {name: score.mean for name, score in found.items() if score.task_means()}


def verdict_markdown(verdict: Verdict) -> str:
    """One checkpoint's verdict: a sentence, then a row for each benchmark, lost ones first."""
    lost = verdict.lost_benchmarks
    said = f"lost {', '.join(lost)}" if lost else "nothing was lost"
    found = sorted(verdict.benchmarks.values(), key=lambda one: (one.decision != "regressed", one.benchmark))
    rows = "\n".join(map(_row, found))
    return f"""## {verdict.stage}, {verdict.attempt}: {said}

Checkpoint `{verdict.id}`, which started from `{verdict.parent}`.

| benchmark | role | before | after | change, 95% | verdict | why |
|---|---|---|---|---|---|---|
{rows}
"""


def _row(found: BenchmarkVerdict) -> str:
    before = "" if found.before is None else f"{found.before.mean:.3f}"
    after = "" if found.after is None else f"{found.after:.3f}"
    change = "" if found.difference is None else f"{found.difference:+.3f}"
    if found.interval is not None:
        change += " ({:+.3f} to {:+.3f})".format(*found.interval)
    decision = WORDS[found.word]
    why = found.reason.replace("|", "\\|").replace("\n", " ")
    return f"| {found.benchmark} | {found.role} | {before} | {after} | {change} | {decision} | {why} |"


def verdict_scores(verdict: Verdict) -> dict[str, float]:
    """By benchmark the score after, and how many benchmarks were lost."""
    scores = {name: found.after for name, found in verdict.benchmarks.items() if found.after is not None}
    return {**scores, "benchmarks lost": float(len(verdict.lost_benchmarks))}
