"""The command line: `kascade VERB`. Every verb lives in `kascade.commands` and imports what it needs late."""

from __future__ import annotations

import json
from typing import Any

import typer
from typer.core import TyperGroup

from kascade.commands import cluster, data, garbage, grade, lab, recipes, results, runs
from kascade.commands.output import console
from kascade.errors import KascadeError, UserError

INTERRUPTED = 130  # what a shell reports for a command ended by Ctrl-C


class _Verbs(TyperGroup):
    """Turns errors into messages and exit codes: 2 for faulty input, 130 for Ctrl-C."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KascadeError as error:
            _show(error, as_json=ctx.obj)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            console().print("interrupted; the same command continues", style="yellow")
            raise typer.Exit(INTERRUPTED) from error


def _show(error: KascadeError, *, as_json: bool) -> None:
    """Faults on stderr for people; as JSON on stdout where a program reads that."""
    faults = error.as_json() if isinstance(error, UserError) else []
    if as_json:
        typer.echo(json.dumps({"error": type(error).__name__, "message": str(error), "faults": faults}))
        return
    console().print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
    if len(faults) > 1:
        console().print(f"{len(faults)} faults", style="bold")


app = typer.Typer(
    cls=_Verbs,
    help="A post-training cascade for language models, guarded against forgetting.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (recipes, runs, results, grade, data, lab, garbage, cluster):
    module.register(app)


def main() -> None:
    app(prog_name="kascade")


if __name__ == "__main__":
    main()
