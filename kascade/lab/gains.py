"""Did each stage teach what it is for? Its checkpoint against its parent, on more tasks than the guard asks.

The guard's exams are as small as telling a loss from chance allows. A gain of a few points needs more answers
to show, and they are asked of two checkpoints and of the stage's own benchmarks only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kascade.errors import Fault, UserError
from kascade.exams.evaluate import score_by
from kascade.exams.exams import Draw
from kascade.guard.comparison import compare
from kascade.guard.rule import goal_benchmarks
from kascade.guard.scores import Score, read_scores
from kascade.guard.verdict import Verdict
from kascade.lab.case import trained_verdicts
from kascade.lab.folder import prepare_folder
from kascade.lab.page import Table, markdown_table
from kascade.recipe.run_recipe import read_run_recipe
from kascade.recipe.schema import Stage
from kascade.run.context import Run, digest_of
from kascade.storage.files import write_json, write_text
from kascade.storage.progress import Progress
from kascade.storage.run_folder import RunFolder

COLUMNS = ("stage", "benchmark", "sampled", "difference, 95% interval", "greedy", "shown")


class Gain(BaseModel):
    """One benchmark of a stage, before and after its training, before any recovery.

    before, after: mean reward of sampled answers; interval: 95%, of the paired difference by task;
    greedy_*: of the most likely answers, None where the recipe does not ask for them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    benchmark: str
    before: float
    after: float
    interval: tuple[float, float]
    greedy_before: float | None
    greedy_after: float | None
    num_tasks: int
    samples: float

    @property
    def verdict(self) -> str:
        return "raised" if self.interval[0] > 0 else "lowered" if self.interval[1] < 0 else "no"


def measure_gains(
    run: Path,
    out: Path,
    *,
    tasks: int,
    samples: int,
    stages: Collection[str] = (),
    announce: Callable[[str], None] = lambda line: None,
) -> list[Gain]:
    """The finished stages' goal benchmarks, on `tasks` test tasks with `samples` answers each.

    stages: only these; none named: all. gains.json and gains.md go to `out`, with the scores: the same call
    continues where it was interrupted. Raises UserError when no stage is finished, one that is named is not,
    or `out` holds other things.
    """
    layout = RunFolder(run)
    recipe = read_run_recipe(run)
    judged = trained_verdicts(layout)
    if not judged:
        raise UserError(Fault(str(run), "no stage of this run has been judged yet", remedy="kascade run"))
    if missing := [name for name in stages if name not in judged]:
        faults = [
            Fault(f"--stage {name}", "is no stage that this run has judged", ", ".join(judged))
            for name in missing
        ]
        raise UserError(faults)
    more = [one.model_copy(update={"tasks": tasks, "samples": samples}) for one in recipe.benchmarks]
    recipe = recipe.model_copy(update={"benchmarks": more})
    prepare_folder(out, RunFolder(out).all_scores, "gains")
    own = Run(RunFolder(out), recipe, "gains", Progress(out / "progress.json", "gains"))
    found = []
    for stage in (part for part in recipe.stages if part.name in (stages or judged)):
        gains = _of_stage(own, stage, judged[stage.name])
        found += gains
        for gain in gains:
            announce(f"{stage.name}: {gain.benchmark} {gain.before:.3f} to {gain.after:.3f}")
    write_json(out / "gains.json", [gain.model_dump(mode="json") for gain in found])
    write_text(out / "gains.md", markdown(found))
    return found


def _of_stage(run: Run, stage: Stage, verdict: Verdict) -> list[Gain]:
    goals = goal_benchmarks(run.recipe, stage)
    names = [one.name for one in run.recipe.benchmarks if one.name in goals]
    if digest_of(verdict.checkpoint) == digest_of(verdict.parent):
        return []
    before, after = (_scores(run, reference, names) for reference in (verdict.parent, verdict.checkpoint))
    return [gain for name in names if (gain := _gain(stage.name, before[name], after[name]))]


def _scores(run: Run, reference: str, names: Sequence[str]) -> dict[str, Score]:
    score_by(run, reference, names, Draw("screen"))
    return read_scores(run.layout, digest_of(reference), "screen")


def _gain(stage: str, before: Score, after: Score) -> Gain | None:
    found = compare(before.task_rewards(), after.task_rewards())
    if found is None:
        return None
    return Gain(
        stage=stage,
        benchmark=after.benchmark,
        before=found.before,
        after=found.after,
        interval=found.interval,
        greedy_before=before.greedy_mean,
        greedy_after=after.greedy_mean,
        num_tasks=found.num_tasks,
        samples=found.samples_after,
    )


def markdown(gains: Sequence[Gain]) -> str:
    """The gains as a Markdown table."""
    return markdown_table(Table(COLUMNS, tuple(map(_row, gains))))


def _row(gain: Gain) -> tuple[str, ...]:
    low, high = gain.interval
    greedy = "" if gain.greedy_before is None else f"{gain.greedy_before:.2f} → {gain.greedy_after:.2f}"
    difference = f"{gain.after - gain.before:+.3f} [{low:+.3f}, {high:+.3f}]"
    sampled = f"{gain.before:.2f} → {gain.after:.2f}"
    return (gain.stage, gain.benchmark, sampled, difference, greedy, gain.verdict)
