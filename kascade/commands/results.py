"""Verbs that look at results: report, explain, ui."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from kascade.commands.output import AsJson, console, emit

RunFolder = Annotated[Path, typer.Argument(help="The folder of a run.")]


def register(app: typer.Typer) -> None:
    for verb in (report, explain, ui):
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
