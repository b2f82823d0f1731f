"""Verbs that answer a run which waits for a person: approve, reject."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kascade.commands.output import AsJson, emit

Folder = Annotated[Path, typer.Argument(help="The folder of a run that waits.")]
Before = Annotated[
    str | None, typer.Option(help="Which question: a stage's name, or promotion. Default: what it waits for.")
]
By = Annotated[str | None, typer.Option(help="Who answers; your user name by default.")]


def register(app: typer.Typer) -> None:
    app.command("approve")(approve)
    app.command("reject")(reject)


def approve(
    folder: Folder,
    *,
    before: Before = None,
    by: By = None,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    only_record: Annotated[
        bool, typer.Option("--only-record", help="Write the answer down; do not continue the run here.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print no progress, only the outcome.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let a run that waits for a person go on, and continue it here.

    Example: kascade approve runs/own --reason "scores look right"
    """
    from kascade.commands.runs import changed_recipe, continue_run

    recipe = changed_recipe(folder, None)
    words = _answer(folder, before, by, reason, approved=True)
    if only_record:
        emit(words) if as_json else typer.echo(f"approved: {words['before']}")
        return
    continue_run(folder.absolute(), recipe, quiet, as_json)


def reject(
    folder: Folder,
    *,
    reason: Annotated[str, typer.Option(help="Why, for the record.")],
    before: Before = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Tell a run that waits for a person no: it ends where it stands.

    Example: kascade reject runs/own --reason "chat got worse"
    """
    from kascade.commands.runs import changed_recipe
    from kascade.tracking.report import write_report

    changed_recipe(folder, None)
    words = _answer(folder, before, by, reason, approved=False)
    report = write_report(folder)
    emit({**words, "report": str(report)}) if as_json else typer.echo(
        f"rejected: {words['before']}\n{report}"
    )


def _answer(
    folder: Path, before: str | None, by: str | None, reason: str, *, approved: bool
) -> dict[str, str]:
    from getpass import getuser

    from kascade.guard.approval import decide, let_time_decide
    from kascade.recipe.run_recipe import read_run_recipe
    from kascade.storage.run_folder import RunFolder

    layout = RunFolder(folder)
    let_time_decide(layout, read_run_recipe(folder))
    name = by or getuser()
    answered = decide(layout, before, approved=approved, by=name, reason=reason)
    return {"before": answered.before, "by": name, "at": answered.decisions[-1].at}
