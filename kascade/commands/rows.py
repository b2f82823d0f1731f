"""`kascade data rows`: the rows that an installed environment of another project brings along."""

from __future__ import annotations

import subprocess
import tempfile
from itertools import islice
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.commands.grading_arguments import EnvironmentOptions, environment_options
from kascade.commands.output import AsJson, emit
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.environments.remote.settings import Packaged

SAID = 300  # characters of a program's last words


def write_rows(
    environment: Annotated[str, typer.Argument(help="nemo_gym or verifiers.")],
    *,
    options: EnvironmentOptions = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    most: Annotated[int, typer.Option(min=1, help="Rows to write at most.")] = 100_000,
    as_json: AsJson = False,
) -> None:
    """Write the rows of an environment that a package of another project holds.

    Example: kascade data rows nemo_gym --option package=mcqa --option python=/env/bin/python -o rows.jsonl
    """
    if out.exists():
        raise UserError(Fault(str(out), "is there already", remedy="name another file"))
    lines = _lines(_packaged(environment, environment_options(options, environment)), most)
    part = out.with_name(f"{out.name}.part")
    part.write_text("".join(lines), encoding="utf-8")
    part.rename(out)
    if as_json:
        emit({"rows": len(lines), "path": str(out)})
        return
    typer.echo(f"{out}: {len(lines):,} rows")


def _packaged(name: str, given: dict[str, Any]) -> Packaged:
    """The options of an environment whose server is an installed package. Raises UserError."""
    from kascade.environments import get_environment
    from kascade.environments.remote.settings import Packaged

    kind = get_environment(name).options_type
    if kind is None or not issubclass(kind, Packaged):
        what = "no package of another project holds its rows"
        raise UserError(Fault(f"environment {name!r}", what, allowed="nemo_gym, verifiers"))
    found = kind.of(given)
    if found.package is None:
        what = "is needed: it names the environment"
        raise UserError(Fault("--option package", what, remedy="such as --option package=mcqa"))
    return found


def _lines(options: Packaged, most: int) -> list[str]:
    """What the package's own program prints, at most so many lines. Raises UserError."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words:
        try:
            process = subprocess.Popen(options.prints_rows(), stdout=PIPE, stderr=words, encoding="utf-8")
        except OSError as error:
            what = f"{options.python} cannot be started: {error.strerror}"
            remedy = "name the interpreter of the environment where the package is installed"
            raise UserError(Fault("--option python", what, remedy=remedy)) from None
        with process:
            assert process.stdout is not None
            lines = list(islice(process.stdout, most))
        words.seek(0)
        if not lines:
            what = f"printed no rows: {words.read().strip()[-SAID:]}"
            raise UserError(Fault(f"package {options.package}", what))
    return lines
