"""`kascade grade`: answers in rows, graded by the environments they belong to."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.output import console
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.data.rows import Row

HELP = "Rows with a `response` (NeMo-Gym rollouts included): JSONL, JSON, CSV or Parquet."


def register(app: typer.Typer) -> None:
    app.command("grade")(grade)


def grade(
    rows: Annotated[str | None, typer.Argument(help=HELP)] = None,
    *,
    environment: Annotated[str | None, typer.Option(help="For rows that do not name theirs.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", help="NAME=VALUE of that environment, as in a recipe (repeatable)."),
    ] = None,
    layout: Annotated[str, typer.Option(help="How the rows are laid out; see docs/data.md.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="Append here instead of printing; rows graded there are not done again."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Grade this run's kept exam answers again instead, without sampling.")
    ] = None,
    judge_url: Annotated[
        str | None, typer.Option(help="Of a judge for rows that need one, with /v1.")
    ] = None,
    judge_model: Annotated[str, typer.Option(help="Its name there.")] = "judge",
    judge_key_env: Annotated[str | None, typer.Option(help="Environment variable with its key.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Faults as JSON too.")] = False,
) -> None:
    """Grade rows that carry a response: one JSON line each with reward, components and error.

    What it came to is told on stderr.
    """
    del as_json  # grades are JSON lines anyway; faults are told by the group of verbs
    if (rows is None) == (run is None):
        raise UserError(Fault("kascade grade", "needs rows, or a run", remedy="give ROWS, or --run FOLDER"))
    if run is not None:
        _grade_run(run)
        return
    assert rows is not None
    if judge_url is not None:
        from kascade.environments.judge import use_judge
        from kascade.environments.judge_endpoint import EndpointJudge
        from kascade.recipe.parts import JudgeModel

        use_judge(EndpointJudge(JudgeModel(url=judge_url, model=judge_model, api_key_env=judge_key_env)))
    from kascade.data.rows import read_rows
    from kascade.environments.grading import grade_rows
    from kascade.recipe.parts import DataSource

    source = DataSource(environment=environment or "any", path=rows, layout=layout)
    own = _options(options, environment)
    done = _finished(out) if out else set()
    found = list(_not_done(read_rows(source), done))
    faults: list[Fault] = []
    rewards: dict[str, list[float]] = {}
    num_errors = 0
    for result in grade_rows(found, environment, own):
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


def _options(pairs: list[str] | None, environment: str | None) -> dict[str, Any]:
    """Options of an environment; values are JSON where they can be read as such, else text."""
    from kascade.environments import get_environment

    if pairs and environment is None:
        raise UserError(Fault("--option", "belongs to one environment", remedy="name it with --environment"))
    found = {}
    for name, equals, value in (pair.partition("=") for pair in pairs or []):
        if not equals:
            raise UserError(Fault(f"--option {name}", "is not a pair", "NAME=VALUE"))
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    try:
        if environment is not None:
            get_environment(environment).with_options(found)
    except ValueError as error:
        raise UserError(Fault("--option", str(error))) from error
    return found


def _told(rewards: dict[str, list[float]], num_errors: int) -> str:
    """What all grades come to."""
    graded = sum(map(len, rewards.values())) + num_errors
    means = [f"{name} {sum(of) / len(of):.3f} (of {len(of)})" for name, of in sorted(rewards.items())]
    mean = f", mean reward {', '.join(means)}" if means else ""
    errors = f"{num_errors} grader {'error' if num_errors == 1 else 'errors'}"
    return f"{graded} {'row' if graded == 1 else 'rows'} graded{mean}, {errors}"


def _grade_run(run: Path) -> None:
    """One line a score of the run: before and after."""
    from kascade.commands.run_folder import read_run_recipe
    from kascade.stages.context import open_run
    from kascade.stages.exams import regrade

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
    from kascade.environments.grading import row_key

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
        raise UserError(Fault(str(out), f"cannot be written: {error.strerror}")) from error
