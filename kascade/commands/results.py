"""Verbs that look at results: report, explain, ui, grade."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.output import AsJson, console, emit
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.environments.base import Environment, Grade, Task

RunFolder = Annotated[Path, typer.Argument(help="The folder of a run.")]


def register(app: typer.Typer) -> None:
    for verb in (report, explain, ui, grade):
        app.command(verb.__name__)(verb)


def report(run: RunFolder, as_json: AsJson = False) -> None:
    """Write the run's HTML report again and print where it is."""
    from kascade.commands.run_folder import read_run_recipe
    from kascade.tracking.report import write_report

    read_run_recipe(run)
    page = write_report(run)
    emit({"report": str(page)}) if as_json else typer.echo(str(page))


def explain(
    run: RunFolder,
    subject: Annotated[str, typer.Argument(help="A stage, a benchmark, or a checkpoint.")],
    as_json: AsJson = False,
) -> None:
    """Tell on one screen where a checkpoint, stage or benchmark stands, and why."""
    from kascade.commands.run_folder import read_run_recipe
    from kascade.tracking import explain as tracking

    read_run_recipe(run)
    if as_json:
        emit(tracking.explain_data(run, subject))
    else:
        typer.echo(tracking.explain(run, subject))


def ui(
    run: RunFolder,
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    as_json: AsJson = False,
) -> None:
    """Open the run's MLflow server; Ctrl-C ends it."""
    import subprocess

    from kascade.commands.run_folder import read_run_recipe
    from kascade.tracking.mlflow_server import ui_command

    command = ui_command(run, read_run_recipe(run), host=host, port=port)
    if as_json:
        emit({"address": command.address})
    else:
        console().print(f"MLflow on {command.address} (Ctrl-C ends it)", markup=False)
    ended = subprocess.run(command.arguments, env={**os.environ, **command.environment}, check=False)
    raise typer.Exit(ended.returncode)


def grade(
    rows: Annotated[Path, typer.Argument(help="JSONL of NeMo-Gym rows that carry a `response`.")],
    environment: Annotated[str | None, typer.Option(help="For rows that do not name theirs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Faults as JSON too.")] = False,
) -> None:
    """Grade rows that carry a response: one JSON line each with reward, components and error."""
    del as_json  # grades are JSON lines anyway; faults are told by the group of verbs
    from kascade.data.rows import read_rows

    faults: list[Fault] = []
    try:
        for number, row in read_rows(rows):
            try:
                answer, task, grader = _graded(row, environment)
            except ValueError as error:
                faults.append(Fault(f"{rows}:{number}", str(error)))
            else:
                _print_grade(number, row, grader.grade(task, [answer])[0])
    except UserError as error:
        faults.extend(error.faults)
    if faults:
        raise UserError(faults)


def _graded(row: dict[str, Any], environment: str | None) -> tuple[str, Task, Environment]:
    """Answer, task and grader of a row. Raises ValueError naming the field at fault."""
    from kascade.environments import get_environment

    try:
        grader = get_environment(environment or _environment_name(row))
    except UserError as error:
        fault = error.faults[0]
        raise ValueError(f"{fault.where} {fault.what}; registered are {fault.allowed}") from None
    return _answer(row), grader.from_row(row), grader


def _environment_name(row: dict[str, Any]) -> str:
    from kascade.environments import known_environments

    agent = row.get("agent_ref")
    named = agent.get("name") if isinstance(agent, dict) else None
    if not isinstance(named, str):
        raise ValueError("agent_ref.name: missing; name the environment there or with --environment")
    # NeMo-Gym calls agents after their server: "mcqa_simple_agent" serves "mcqa"
    fitting = [name for name in known_environments() if named == name or named.startswith(f"{name}_")]
    return max(fitting, key=len, default=named)


def _answer(row: dict[str, Any]) -> str:
    """The answer of a row: plain text, or the text of an OpenAI response's output."""
    response = row.get("response")
    if isinstance(response, str):
        return response
    output = response.get("output") if isinstance(response, dict) else None
    if not isinstance(output, list):
        raise ValueError("response: missing; text, or an OpenAI response with `output`")
    parts = [
        part.get("text")
        for item in output
        if isinstance(item, dict) and isinstance(item.get("content"), list)
        for part in item["content"]
        if isinstance(part, dict)
    ]
    return "".join(text for text in parts if isinstance(text, str))


def _print_grade(number: int, row: dict[str, Any], grade: Grade) -> None:
    graded = {
        "row": number,
        "id": row.get("id", row.get("uuid")),
        "reward": grade.reward if grade.error is None else None,
        "components": dict(grade.components),
        "error": grade.error,
    }
    typer.echo(json.dumps(graded, ensure_ascii=False))
