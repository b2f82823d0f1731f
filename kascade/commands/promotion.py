"""Verbs about what is promoted: promote, rollback, champion."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.output import AsJson, emit
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.tracking.promote import Promotion
    from kascade.tracking.registry import Registered

Name = Annotated[str, typer.Argument(help="A registered model's name, or the folder of a run.")]
Where = Annotated[
    str | None, typer.Option("--tracking", help="MLflow's address. Default: MLFLOW_TRACKING_URI.")
]
Alias = Annotated[
    str | None, typer.Option(help="The alias. Default: that of the run's recipe, else champion.")
]


def register(app: typer.Typer) -> None:
    app.command("promote")(promote)
    app.command("rollback")(rollback)
    app.command("champion")(champion)


def promote(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    *,
    again: Annotated[
        bool, typer.Option("--again", help="Also a version that was rolled back before.")
    ] = False,
    fewer_benchmarks: Annotated[
        bool, typer.Option("--fewer-benchmarks", help="Also without some benchmarks of the champion.")
    ] = False,
    without_champion: Annotated[
        bool, typer.Option("--without-champion", help="Let the end check alone decide: the champion is lost.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a run's final checkpoint the champion, if it is shown to be better than the present one or equal.

    Both answer the run's benchmarks on fresh samples, unless the run compared them before. Exit code 0: it is
    champion; 1: the champion stays.

    Example: kascade promote runs/own
    """
    from kascade.recipe.run_recipe import read_run_recipe
    from kascade.steps.promotion import promote_by_hand
    from kascade.storage.run_folder import RunFolder
    from kascade.tracking.promote import Allowed
    from pipelines.process import folder_lock

    read_run_recipe(run)
    allowed = Allowed(again, fewer_benchmarks, without_champion)
    with folder_lock(RunFolder(run).runner_lock):
        found = promote_by_hand(run, allowed)
    if as_json:
        emit(found.model_dump(mode="json"))
    else:
        _show_promotion(found)
    raise typer.Exit(0 if found.decision == "promoted" else 1)


def _show_promotion(found: Promotion) -> None:
    if found.decision == "promoted":
        typer.echo(f"{found.alias} of {found.name} is version {found.version}: {found.challenger}")
    else:
        typer.echo(f"{found.alias} of {found.name} stays where it is")
    for reason in found.reasons:
        typer.echo(f"  {reason}")


def rollback(
    name: Name,
    *,
    to: Annotated[
        str | None, typer.Option(help="Version to go back to; the one before the last promotion by default.")
    ] = None,
    alias: Alias = None,
    tracking: Where = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version the champion again; no run promotes the later one again by itself.

    Example: kascade rollback own --tracking http://mlflow:5000
    """
    from kascade.tracking.rollback import roll_back

    with _registered(name, alias, tracking) as model:
        done = roll_back(model, to)
    if as_json:
        emit({"version": done.version.as_json(), "before": done.before})
        return
    text = f"{model.alias} of {model.name} is version {done.version.number}: {done.version.reference}"
    typer.echo(text if done.before else f"{text}\nnothing changed: it was before")


def champion(name: Name, *, alias: Alias = None, tracking: Where = None, as_json: AsJson = False) -> None:
    """Show who is champion, and every promotion and rollback before.

    Example: kascade champion runs/own
    """
    with _registered(name, alias, tracking) as model:
        found, moves = model.champion(), model.history()
    if as_json:
        emit({"champion": found.as_json() if found else None, "history": [asdict(move) for move in moves]})
        return
    if found is None:
        typer.echo(f"{model.name} has no {model.alias} yet")
        return
    typer.echo(f"{model.alias} of {model.name} is version {found.number}: {found.reference}")
    for move in moves:
        came = f"from version {move.previous}" if move.previous else "first"
        typer.echo(f"  {move.when}  {move.how}: version {move.version}, {came}. {move.why}")


@contextmanager
def _registered(name: str, alias: str | None, tracking: str | None) -> Iterator[Registered]:
    """The registered model that a command line names. Raises UserError where no MLflow is named."""
    from kascade.recipe.run_recipe import read_run_recipe
    from kascade.tracking.mlflow_server import connect, tracking_uri
    from kascade.tracking.promote import ALIAS
    from kascade.tracking.registry import Registered

    known: dict[str, Any] = {"uri": tracking or os.environ.get("MLFLOW_TRACKING_URI"), "alias": None}
    if Path(name).is_dir():
        recipe = read_run_recipe(Path(name))
        known = {"uri": tracking or tracking_uri(Path(name), recipe), "alias": recipe.tracking.promote_as}
        name = recipe.name
    if known["uri"] is None:
        remedy = "give --tracking or set MLFLOW_TRACKING_URI; or give the folder of a run"
        raise UserError(Fault(name, "no MLflow is named to look for this model", remedy=remedy))
    with connect(known["uri"]) as client:
        yield Registered(client, name, alias or known["alias"] or ALIAS)
