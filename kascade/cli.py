"""The command line: `kascade VERB`. Every verb lives in `kascade.commands` and imports what it needs late."""

from __future__ import annotations

import errno
import json
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from kascade.commands import (
    approvals,
    attest,
    cluster,
    compare,
    data,
    environments,
    export,
    garbage,
    grade,
    init,
    lab,
    plan,
    promotion,
    recipes,
    results,
    runs,
    serving,
    upload,
)
from kascade.commands.output import collapsed, console
from kascade.data.faults import shown
from kascade.errors import Fault, KascadeError, UserError, redact
from kascade.storage.files import DISK, disk_words
from kascade.version import __version__

NAMELESS = (errno.ENAMETOOLONG, errno.ELOOP)  # of a path that can name no file
NO_TEMPORARY = "No usable temporary directory"  # what Python says where it can write none
EMPTY = "kascade.empty"  # whether an argument is an empty text: of "$RUNS", say
INTERRUPTED = 130  # what a shell reports for a command ended by Ctrl-C
WIDTH = 110  # of help, where the terminal has it
GROUPS = {
    "Start": ("init", "check", "plan", "data", "environments"),
    "Run": ("run", "resume", "approve", "reject"),
    "Look at results": ("report", "explain", "compare", "evaluate", "ui", "grade"),
    "Talk to a checkpoint": ("serve", "chat"),
    "Promote": ("promote", "rollback", "champion", "sign", "verify"),
    "Kubeflow": ("compile", "submit", "watch", "schedule"),
}
OTHERS = "Other"
SELDOM = "Seldom needed: kascade gc (make room), kascade lab (experiments on a finished run)."


class _Verbs(TyperGroup):
    """Lists verbs in groups; turns errors into messages and exit codes (2: faulty input, 130: Ctrl-C)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = "--json" in args
        ctx.meta[EMPTY] = "" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            if ctx.meta[EMPTY]:
                remedy = "is a variable of the shell not set?"
                raise UserError(Fault("kascade", "an argument is empty", remedy=remedy))
            return super().invoke(ctx)
        except KascadeError as error:
            _show(error, as_json=ctx.obj)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.errno not in {*DISK, *NAMELESS} and NO_TEMPORARY not in str(error):
                raise
            told = _disk_error(error)
            _show(told, as_json=ctx.obj)
            raise typer.Exit(told.exit_code) from error
        except KeyboardInterrupt as error:
            console().print("interrupted; the same command continues", style="yellow")
            raise typer.Exit(INTERRUPTED) from error
        except Exception as error:
            if _is_usage(error) and hasattr(error, "message"):
                error.message = redact(error.message)  # it repeats what was typed
            if not (ctx.obj and _is_usage(error)):
                raise
            _emit_error("UsageError", str(getattr(error, "message", error)), [])
            raise typer.Exit(UserError.exit_code) from error

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = {name: command for name, command in self.commands.items() if not command.hidden}
        grouped = {name for names in GROUPS.values() for name in names}
        groups = {**GROUPS, OTHERS: tuple(name for name in shown if name not in grouped)}
        for title, names in groups.items():
            rows = [(name, _first_sentence(shown[name].help)) for name in names if name in shown]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_max=14)


def _first_sentence(help: str | None) -> str:
    """What a verb is for, uncut: the first paragraph of its help."""
    return " ".join((help or "").strip().partition("\n\n")[0].split())


def _is_usage(error: Exception) -> bool:
    """Whether an error is one of the command line itself: an unknown verb, option or value."""
    return getattr(error, "exit_code", None) == UserError.exit_code and hasattr(error, "format_message")


def _disk_error(error: OSError) -> KascadeError:
    if error.errno in NAMELESS:
        where = shown(str(error.filename or "a path"))
        return UserError(Fault(where, f"cannot be used: {error.strerror}", remedy="give another path"))
    if NO_TEMPORARY in str(error):
        return KascadeError(
            f"{error.strerror}. To do: make room in one of them, or set TMPDIR to another folder"
        )
    return KascadeError(disk_words(error))


def _show(error: KascadeError, *, as_json: bool) -> None:
    """Errors on stderr for people; as JSON on stdout where a program reads that."""
    faults = error.faults if isinstance(error, UserError) else ()
    if as_json:
        _emit_error(type(error).__name__, str(error), UserError(faults).as_json())
        return
    text = "\n".join(collapsed(faults)) if faults else str(error)
    console().print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    if len(faults) > 1:
        console().print(f"{len(faults)} errors", style="bold")


def _emit_error(kind: str, message: str, faults: list[dict[str, str | None]]) -> None:
    typer.echo(json.dumps({"error": kind, "message": message, "faults": faults}))


app = typer.Typer(
    cls=_Verbs,
    help="A post-training cascade for language models, guarded against forgetting.",
    epilog=f"{SELDOM} Each verb explains itself: kascade VERB --help",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """A post-training cascade for language models, guarded against forgetting."""


for module in (
    init,
    recipes,
    plan,
    runs,
    approvals,
    results,
    compare,
    grade,
    data,
    environments,
    export,
    serving,
    lab,
    garbage,
    upload,
    cluster,
    promotion,
    attest,
):
    module.register(app)


def main() -> None:
    app(prog_name="kascade")


if __name__ == "__main__":
    main()
