"""Verbs that run a cascade here: run, resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kascade.commands.arguments import Changes, RecipeArguments, recipe_verb
from kascade.commands.checking import examine_or_raise
from kascade.commands.output import AsJson, console, emit

if TYPE_CHECKING:
    from kascade.recipe.schema import Recipe

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress, only the outcome.")]


def register(app: typer.Typer) -> None:
    app.command("run")(run)
    app.command("resume")(resume)


@recipe_verb
def run(
    arguments: RecipeArguments,
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run's folder; runs/NAME by default.")
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a cascade on this machine; the same command again continues where it stopped.

    Example: kascade run own.yaml -o runs/own --set rl.steps=20
    """
    loaded = arguments.load()
    folder = (out or Path("runs") / loaded.recipe.name).absolute()
    examine_or_raise(loaded, folder)
    continue_run(folder, loaded.recipe, quiet, as_json, text=arguments.remark() + loaded.text)


def resume(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    settings: Changes = None,
    quiet: Quiet = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every weight first, also files that have not changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Continue an interrupted run with its own recipe; finished stages are left as they are.

    Example: kascade resume runs/own --set budget.cpu_hours=10
    """
    recipe = changed_recipe(folder, settings)
    continue_run(folder.absolute(), recipe, quiet, as_json, deep=verify)


def changed_recipe(folder: Path, settings: list[str] | None) -> Recipe:
    """A run's own recipe, with changes. Raises UserError."""
    from kascade.recipe.load import read_recipe
    from kascade.recipe.run_recipe import read_run_recipe
    from kascade.storage.run_folder import RunFolder

    own = read_run_recipe(folder)
    return read_recipe(RunFolder(folder).resolved_recipe, settings).recipe if settings else own


def continue_run(
    folder: Path, recipe: Recipe, quiet: bool, as_json: bool, *, text: str | None = None, deep: bool = False
) -> None:
    """Run a recipe in a folder, and leave with the run's own exit code."""
    from pipelines.local import run_local

    result = run_local(recipe, folder, text=text, deep=deep, quiet=quiet or as_json)
    if result.error is not None:
        _tell_failure(folder, recipe)
    began = result.failed_step != "preflight"  # before that there is nothing to report on
    report = result.report or (_report_so_far(folder) if began else None)
    if as_json:
        emit(
            {
                "run": str(folder),
                "status": result.status,
                "report": str(report) if report else None,
                "final_checkpoint": result.final_checkpoint,
                "failed_step": result.failed_step,
                "error": result.error,
                "waiting": result.waiting.model_dump() if result.waiting else None,
            }
        )
    raise typer.Exit(result.exit_code)


def _tell_failure(folder: Path, recipe: Recipe) -> None:
    """To the receivers of the run's notifications, where its last step could not."""
    from kascade.steps.telling import tell_end
    from kascade.storage.run_folder import RunFolder

    if recipe.notify:
        tell_end(RunFolder(folder), recipe)


def _report_so_far(folder: Path) -> Path:
    """The report of a run that failed: what there is, and what went wrong."""
    from kascade.tracking.report import write_report

    report = write_report(folder)
    console().print(f"report so far: {report}", markup=False, highlight=False, soft_wrap=True)
    return report
