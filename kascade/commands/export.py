"""`kascade export`: a checkpoint as a folder for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kascade.commands.output import AsJson, emit
from kascade.errors import Fault, UserError
from kascade.storage.files import naming


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint's folder or reference.")],
    out: Annotated[Path, typer.Argument(help="A folder that does not exist yet, or is empty.")],
    *,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="The adapter alone. Without it, adapters are merged.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint as a folder that transformers, peft and vLLM read.

    Example: kascade export runs/mine/checkpoints/code_rl/train-1a2b3c ./my-model
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(Fault(str(out), "is not empty", remedy="name a new folder"))
    from kascade.models.hub_folder import write_adapter_alone, write_whole
    from kascade.serving.served import checkpoint_folder

    folder = checkpoint_folder(checkpoint)
    with naming(out):
        (write_adapter_alone if adapter else write_whole)(folder, out)
    emit({"written": str(out)}) if as_json else typer.echo(f"{out} written")
