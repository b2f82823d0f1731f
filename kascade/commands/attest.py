"""Verbs that sign a checkpoint with its verdicts, and verify it offline: sign, verify."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kascade.commands.output import AsJson, emit
from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from kascade.attestation.signing import Verified


def register(app: typer.Typer) -> None:
    app.command("sign")(sign)
    app.command("verify")(verify)


def sign(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    *,
    key: Annotated[
        str | None,
        typer.Option(help="Private key: a PEM file, or env:VARIABLE. Default: the recipe's attest.key."),
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Reference of the checkpoint; the run's final one by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Sign a checkpoint, its verdicts, and the digests of what they were made from.

    Needs the extra `attest`. Example: kascade sign runs/own --key signing.pem
    """
    from kascade.attestation.signing import sign_checkpoint
    from kascade.recipe.run_recipe import read_run_recipe
    from kascade.storage.run_folder import RunFolder

    recipe, layout = read_run_recipe(run), RunFolder(run)
    named = _reference(key) if key else recipe.attest.key if recipe.attest else None
    if named is None:
        raise UserError(Fault("--key", "no key is named", "a PEM file, env:VARIABLE or file:/PATH"))
    reference = checkpoint or layout.final_checkpoint()
    if reference is None:
        remedy = "name one with --checkpoint, or resume the run"
        raise UserError(Fault(str(run), "the run has no final checkpoint yet", remedy=remedy))
    where = sign_checkpoint(layout, recipe, reference, named, "--key" if key else "attest.key")
    emit({"checkpoint": reference, "attestation": where}) if as_json else typer.echo(where)


def _reference(key: str) -> str:
    return key if key.startswith(("env:", "file:")) else f"file:{Path(key).absolute()}"


def verify(
    model: Annotated[str, typer.Argument(help="A checkpoint's folder or reference.")],
    *,
    public_key: Annotated[Path, typer.Option(help="The public key, a PEM file.")],
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of the run that made it; found where the checkpoint lies in it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a checkpoint against its signature, offline: weights, manifest, verdicts and their inputs.

    Exit code 0: all is as it was signed; 1: it is not, and each file is named; 2: an input cannot be read.

    Example: kascade verify my-model --public-key signing.pub
    """
    from kascade.attestation.signing import verify_model

    try:
        pem = public_key.read_bytes()
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise UserError(Fault(f"--public-key {public_key}", what)) from error
    found = verify_model(model, pem, f"--public-key {public_key}", run)
    if as_json:
        emit({"verified": not found.problems, **asdict(found)})
    else:
        _show(found)
    raise typer.Exit(1 if found.problems else 0)


def _show(found: Verified) -> None:
    if found.id:
        typer.echo(f"{found.id}, sha256 {found.checkpoint}, signed {found.signed}")
        words = ", ".join(f"{name} {standing}" for name, standing in found.end_check.items())
        typer.echo(f"end check: {words or 'none'}")
    for problem in found.problems:
        typer.echo(problem)
    if found.unchecked:
        typer.echo(f"{found.unchecked} files of the run were not checked: name its folder with --run")
    typer.echo("NOT VERIFIED" if found.problems else "verified")
