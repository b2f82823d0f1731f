"""`kascade grade`: answers in rows, graded by the environments they belong to."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.grading_arguments import (
    EnvironmentOptions,
    JudgeKey,
    JudgeName,
    JudgeUrl,
    environment_options,
    judge_at,
)
from kascade.commands.output import console, counted
from kascade.errors import Fault, UserError
from kascade.storage.files import ROOM

if TYPE_CHECKING:
    from kascade.data.rows import Row
    from kascade.recipe.parts import DataSource

HELP = "Rows with a `response` (NeMo-Gym rollouts included): JSONL, JSON, CSV or Parquet."


def register(app: typer.Typer) -> None:
    app.command("grade")(grade)


def grade(
    rows: Annotated[str | None, typer.Argument(help=HELP)] = None,
    *,
    environment: Annotated[str | None, typer.Option(help="Environment of rows that name none.")] = None,
    options: EnvironmentOptions = None,
    layout: Annotated[str, typer.Option(help="How the rows are laid out; see docs/data.md.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Append here instead of printing; rows graded there are not done again."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Grade this run's kept benchmark answers again instead, without sampling."),
    ] = None,
    judge_url: JudgeUrl = None,
    judge_model: JudgeName = "judge",
    judge_key_env: JudgeKey = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print errors as JSON, too.")] = False,
) -> None:
    """Grade rows that carry a response: one JSON line each with reward, components and error.

    A summary goes to stderr. Example: kascade grade answers.jsonl --environment mcqa -o grades.jsonl
    """
    del as_json  # grades are JSON lines anyway; faults are reported by the group of verbs
    if (rows is None) == (run is None):
        raise UserError(Fault("kascade grade", "needs rows, or a run", remedy="give ROWS, or --run FOLDER"))
    if run is not None:
        _grade_run(run)
        return
    from kascade.recipe.parts import DataSource
    from kascade.rollout.checkpoint_judge import set_up_judge

    set_up_judge(judge_at(judge_url, judge_model, judge_key_env), None)
    source = DataSource(environment=environment or "any", path=rows, layout=layout)
    _grade_rows(source, environment, environment_options(options, environment), out)


def _grade_rows(
    source: DataSource, environment: str | None, options: dict[str, Any], out: Path | None
) -> None:
    """Grade the rows that were not graded before. Raises UserError with the errors of the others."""
    from kascade.data.rows import read_rows
    from kascade.environments.rows.grading import grade_rows

    done = _finished(out) if out else set()
    found = list(_not_done(read_rows(source), done))
    faults: list[Fault] = []
    rewards: dict[str, list[float]] = {}
    num_errors = 0
    for result in grade_rows(found, environment, options):
        if isinstance(result, Fault):
            faults.append(result)
            continue
        num_errors += result.grade.error is not None
        if result.grade.error is None:
            rewards.setdefault(result.environment, []).append(result.grade.reward)
        _write(result.as_json(), out)
    before = f", {len(done)} were graded before: {out}" if out else ""
    console().print(f"{_told(rewards, num_errors)}{before}", markup=False, soft_wrap=True, highlight=False)
    if faults:
        raise UserError(faults)


def _told(rewards: dict[str, list[float]], num_errors: int) -> str:
    """What all grades come to."""
    graded = sum(map(len, rewards.values())) + num_errors
    means = [f"{name} {sum(of) / len(of):.3f} (of {len(of)})" for name, of in sorted(rewards.items())]
    mean = f", mean reward {', '.join(means)}" if means else ""
    return f"{counted(graded, 'row')} graded{mean}, {counted(num_errors, 'grader error')}"


def _grade_run(run: Path) -> None:
    """One line a score of the run: before and after."""
    from kascade.exams.exams import regrade
    from kascade.recipe.run_recipe import read_run_recipe
    from kascade.run.context import open_run

    read_run_recipe(run)
    with open_run(str(run), "grade") as opened:
        for before, after in regrade(opened):
            line = {
                "benchmark": after.benchmark,
                "checkpoint": after.checkpoint,
                "phase": after.phase,
                "round": after.round,
                "tasks": after.num_tasks,
                "samples": after.num_samples,
                "before": _finite(before.mean),
                "after": _finite(after.mean),
                "interval": [_finite(end) for end in after.interval()],
                "pass_at": {k: _finite(value) for k, value in after.passes().items()},
                "pass_intervals": {
                    k: [_finite(end) for end in after.pass_interval(k)] for k in after.passes()
                },
                "errors": after.num_errors,
            }
            typer.echo(json.dumps(line))


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _not_done(rows: Iterator[tuple[str, Row | Fault]], done: set[str]) -> Iterator[tuple[str, Row | Fault]]:
    from kascade.environments.rows.grading import row_key

    return ((place, row) for place, row in rows if isinstance(row, Fault) or row_key(row) not in done)


def _finished(out: Path) -> set[str]:
    """Keys of the rows graded without an error in an earlier try; a line torn by its end is cut off."""
    if not out.is_file():
        return set()
    lines = out.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        with out.open("r+b") as file:
            file.truncate(sum(map(len, lines[:-1])))
        lines.pop()
    try:
        graded = [json.loads(line) for line in lines if line.strip()]
        return {str(one["key"]) for one in graded if one["error"] is None}
    except (ValueError, KeyError, TypeError):
        what = "holds other things than grades; nothing was touched"
        raise UserError(Fault(str(out), what, remedy="name another file with --out")) from None


def _write(graded: dict[str, Any], out: Path | None) -> None:
    line = json.dumps(graded, ensure_ascii=False)
    if out is None:
        typer.echo(line)
        return
    try:
        with out.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(line + "\n")
    except OSError as error:
        raise UserError(Fault(str(out), f"cannot be written: {error.strerror}", remedy=ROOM)) from error
