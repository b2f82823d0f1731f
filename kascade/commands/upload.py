"""The verb that brings a model or rows to where a cluster's pods see them: upload."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kascade.commands.output import AsJson, emit
from kascade.errors import Fault, UserError


def register(app: typer.Typer) -> None:
    app.command("upload")(upload)


def upload(
    source: Annotated[Path, typer.Argument(help="A file, or a folder with all that is in it.")],
    target: Annotated[
        str,
        typer.Argument(
            help="s3://BUCKET/PREFIX, or a folder (a mounted volume); or a file's new name there."
        ),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Copy a model or rows to a bucket or a mounted volume; what is there already is not sent again.

    Example: kascade upload rows/ s3://team/rows
    """
    from kascade.storage.uris import open_store

    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    if not files or not source.exists():
        raise UserError(
            Fault(str(source), "holds no file to upload", remedy="name a file or a folder of files")
        )
    top = source if source.is_dir() else source.parent
    names = [path.relative_to(top).as_posix() for path in files]
    if _is_file_name(target, source):
        place, _, name = target.rpartition("/")
        target, names = place or ".", [name]
    store = open_store(target)
    for path, name in zip(files, names, strict=True):
        store.upload(path, name)
        if not as_json:
            typer.echo(f"{target.rstrip('/')}/{name}")
    if as_json:
        emit({"target": target, "files": names})


def _is_file_name(target: str, source: Path) -> bool:
    """Whether a file's target says what the file is to be called: it ends as the file does, in some place."""
    place, _, name = target.rpartition("/")
    in_a_place = not place.endswith((":", "/"))  # a bucket is no file
    ends_alike = source.is_file() and bool(source.suffix) and Path(name).suffix == source.suffix
    return in_a_place and ends_alike and not Path(target).is_dir()
