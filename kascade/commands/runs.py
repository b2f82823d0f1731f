"""Verbs that run a cascade here: run, resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kascade.commands.arguments import RecipeArguments, recipe_verb
from kascade.commands.output import AsJson, console, emit
from kascade.errors import UserError

if TYPE_CHECKING:
    from kascade.recipe.schema import Recipe

Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, only the outcome.")]


def register(app: typer.Typer) -> None:
    app.command("run")(run)
    app.command("resume")(resume)


@recipe_verb
def run(
    arguments: RecipeArguments,
    *,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME by default.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Run a cascade on this machine; the same command again continues where it stopped."""
    from kascade.commands.preflight import preflight_faults
    from kascade.commands.run_folder import open_run_folder

    loaded = arguments.load()
    folder = (out or Path("runs") / loaded.recipe.name).absolute()
    if faults := preflight_faults(loaded, folder):
        raise UserError(faults)
    changed = open_run_folder(folder, loaded.recipe, arguments.remark() + loaded.text)
    if changed is not None:
        _announce(folder, changed)
    _run(folder, loaded.recipe, quiet, as_json)


def resume(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Continue an interrupted run with its own recipe; finished stages are left as they are."""
    from kascade.commands.run_folder import read_run_recipe

    _run(folder.absolute(), read_run_recipe(folder), quiet, as_json)


def _announce(folder: Path, changed: dict[str, tuple[str, ...]]) -> None:
    lines = [f"continuing {folder}" + ("; earlier results are kept, done again:" if changed else "")]
    lines += [f"  {stage}: {'; '.join(reasons)}" for stage, reasons in changed.items()]
    console().print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _run(folder: Path, recipe: Recipe, quiet: bool, as_json: bool) -> None:
    from pipelines.local import run_local

    result = run_local(recipe, folder, quiet=quiet or as_json)
    report = result.report or _report_so_far(folder)
    if as_json:
        emit(
            {
                "run": str(folder),
                "status": result.status,
                "report": str(report),
                "final_checkpoint": result.final_checkpoint,
                "failed_step": result.failed_step,
                "error": result.error,
            }
        )
    raise typer.Exit(result.exit_code)


def _report_so_far(folder: Path) -> Path:
    """The report of a run that failed: what there is, and what went wrong."""
    from kascade.tracking.report import write_report

    report = write_report(folder)
    console().print(f"report so far: {report}", markup=False, highlight=False, soft_wrap=True)
    return report
