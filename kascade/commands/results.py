"""Verbs that look at results: report, explain, ui."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.output import AsJson, console, emit, refuse_taken_port

if TYPE_CHECKING:
    from kascade.tracking.mlflow_server import UiCommand

LOOK_EVERY_S = 0.5
PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}
RunArgument = Annotated[Path, typer.Argument(help="The folder of a run.")]


def register(app: typer.Typer) -> None:
    for verb in (report, explain, ui):
        app.command(verb.__name__)(verb)


def report(run: RunArgument, as_json: AsJson = False) -> None:
    """Write the run's HTML report again and print where it is.

    Example: kascade report runs/own
    """
    from kascade.recipe.run_recipe import read_run_recipe
    from kascade.tracking.report import write_report

    read_run_recipe(run)
    page = write_report(run)
    emit({"report": str(page)}) if as_json else typer.echo(str(page))


def explain(
    run: RunArgument,
    subject: Annotated[str, typer.Argument(help="A stage, a benchmark, or a checkpoint.")],
    as_json: AsJson = False,
) -> None:
    """Show on one screen how a checkpoint, stage or benchmark did, and why.

    Example: kascade explain runs/own math
    """
    from kascade.recipe.run_recipe import read_run_recipe
    from kascade.tracking import explain as tracking

    read_run_recipe(run)
    if as_json:
        emit(tracking.explain_data(run, subject))
    else:
        typer.echo(tracking.explain(run, subject))


def ui(
    run: RunArgument,
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="Port to listen on.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    as_json: AsJson = False,
) -> None:
    """Open the run's page in MLflow; Ctrl-C ends the server.

    Example: kascade ui runs/own --port 5001
    """
    from kascade.recipe.run_recipe import read_run_recipe
    from kascade.tracking.mlflow_server import run_page, ui_command

    recipe = read_run_recipe(run)
    command = ui_command(run, recipe, host=host, port=port)
    refuse_taken_port(host, port)
    page = run_page(run, recipe, command.address)
    if as_json:
        emit({"address": command.address, "page": page})
    else:
        console().print(f"MLflow starts, which takes up to a minute: {page}", **PLAIN)
    raise typer.Exit(_served(command, host, port, quiet=as_json))


def _served(command: UiCommand, host: str, port: int, *, quiet: bool) -> int:
    """The exit status of MLflow's server, which ends with this process and all that it has started."""
    from kascade.termination import TERMINATED, Stopped, stop_requests
    from pipelines.process import stop_group

    environment = {**os.environ, **command.environment}
    with stop_requests() as stop:
        server = subprocess.Popen(command.arguments, env=environment, start_new_session=True)
        try:
            stop.held = False  # a request that came before there was a server to end is seen now
            stop.check()
            if not quiet and _answers(server, host, port):
                console().print("MLflow is ready (Ctrl-C ends it)", **PLAIN)
            return server.wait()
        except Stopped:
            return TERMINATED
        finally:
            stop_group(server)


def _answers(server: subprocess.Popen[bytes], host: str, port: int) -> bool:
    """Wait until a server takes connections; false when it has ended before."""
    while server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return True
        time.sleep(LOOK_EVERY_S)
    return False
