"""What a run is about to continue from is looked at first: damage is named, set aside, and made again.

Every result is found by its key, so what is missing is made by the step that makes it, from the same parent,
with the same draws. What cannot be made again here is refused with what to do.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from kascade.errors import CheckpointError, Fault, KascadeError, UserError
from kascade.guard.champion import Challenge
from kascade.guard.lineage import Outcome
from kascade.guard.own import Identity
from kascade.guard.scores import Score
from kascade.guard.verdict import Verdict
from kascade.storage.checkpoint import is_there, open_checkpoint, verify
from kascade.storage.files import keep_whole_lines, refuse_changed
from kascade.storage.manifest import LOCATION, damage
from kascade.storage.run_folder import RunFolder
from kascade.storage.stamps import Stamps

STAGED = re.compile(r"\.(?:train|recover-[0-9])-[0-9a-f]+\..+")  # a checkpoint that was being written


def repair(folder: RunFolder, *, deep: bool = False) -> list[str]:
    """Make a run's folder fit to continue from. Returns what was found, one line each; [] where all is well.

    deep: read every weight, also those that have not been written since they were last checked. Nobody else
    may use the folder meanwhile. Raises UserError where a checkpoint in a bucket is damaged.
    """
    found = [*_collect(folder), *_checkpoints(folder, deep)]
    return [*found, *_records(folder)]


def _collect(folder: RunFolder) -> Iterator[str]:
    """Remove what a kill left half-written: nothing names it."""
    for staged in folder.checkpoint_folders():
        if STAGED.fullmatch(staged.name):
            shutil.rmtree(staged, ignore_errors=True)
            yield f"{staged}: a checkpoint that was never finished; removed"
    for path in folder.half_written():
        path.unlink(missing_ok=True)


def _checkpoints(folder: RunFolder, deep: bool) -> Iterator[str]:
    stamps = Stamps(folder.stamps, deep)
    refused: list[Fault] = []
    for path in folder.checkpoint_folders():
        if path.name.startswith("."):
            continue
        try:
            ref, manifest = open_checkpoint(path)
            if (path / LOCATION).exists():
                refused += _stored(str(ref), deep)
                continue
            problem = damage(path, manifest, stamps.digest)
        except KascadeError as error:
            problem = str(error).partition(". To do:")[0]
        if problem is not None:
            yield _set_aside(folder, path, problem)
        else:  # it has served
            folder.training(f"{path.parent.name}/{path.name}").drop_states()
    stamps.save()
    if refused:
        raise UserError(refused)


def _stored(reference: str, deep: bool) -> list[Fault]:
    """What is wrong with a checkpoint in a bucket, where others may use it: it is not touched."""
    try:
        if deep:
            verify(reference)
        elif not is_there(reference):
            raise CheckpointError("files are missing there, or its manifest is another one")
    except CheckpointError as error:
        remedy = "remove everything under this address, then run again: it is made anew"
        uri = reference.rpartition("@")[0]
        return [Fault(uri, f"the checkpoint is damaged: {error}", remedy=remedy)]
    return []


def _records(folder: RunFolder) -> Iterator[str]:
    """Results and notes: those that do not say what was written are set aside."""
    yield from _broken(folder, folder.score_files(), Score)
    yield from _broken(folder, folder.verdict_files(), Verdict)
    yield from _broken(folder, folder.outcome_files(), Outcome)
    yield from _broken(folder, folder.challenge_files(), Challenge)
    yield from _broken(folder, [folder.identity], Identity)
    yield from _broken(folder, folder.note_files())
    yield from _changed_lines(folder, folder.answer_files(), "their answers are drawn again")
    yield from _changed_lines(folder, folder.curve_files(), "they are left out of the curve")
    if folder.tracking_id.exists() and not re.fullmatch(rb"[0-9a-f]{32}\n", _bytes(folder.tracking_id)):
        yield _set_aside(folder, folder.tracking_id, "is no id of a run")


def _changed_lines(folder: RunFolder, paths: list[Path], what_then: str) -> Iterator[str]:
    for path in paths:
        try:
            if lost := keep_whole_lines(path):
                yield f"{path}: {lost} changed lines; {what_then}"
        except OSError as error:
            yield _set_aside(folder, path, str(error.strerror))


def _broken(folder: RunFolder, paths: list[Path], model: type[BaseModel] | None = None) -> Iterator[str]:
    for path in paths:
        try:
            if not path.exists():
                continue
            refuse_changed(content := path.read_bytes())
            json.loads(content) if model is None else model.model_validate_json(content)
        except (OSError, ValueError, RecursionError) as error:
            yield _set_aside(folder, path, " ".join(str(error).split())[:120])


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _set_aside(folder: RunFolder, path: Path, why: str) -> str:
    """Move a damaged file or folder out of the way; nothing is deleted."""
    target = folder.damaged / path.relative_to(folder.root)
    number = 0
    while (place := target.with_name(f"{target.name}.{number}")).exists():
        number += 1
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)
    return f"{path}: damaged ({why}); set aside as {place}, and made again"
