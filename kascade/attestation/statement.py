"""What is signed: an in-toto statement about a checkpoint's files, with its verdicts and their inputs.

Subject: the manifest and every file that it names. Predicate: the verdicts in full, and a SHA-256 of every
file of the run's folder that they were made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kascade.errors import KascadeError
from kascade.guard.champion import Challenge, challenges_of
from kascade.guard.end_check import read_end_verdict
from kascade.guard.lineage import Ancestor, read_outcomes, walk
from kascade.guard.verdict import Verdict, read_verdict
from kascade.recipe.identity import canonical_json
from kascade.recipe.schema import Recipe
from kascade.storage.files import file_digest, read_json
from kascade.storage.manifest import MANIFEST, CheckpointRef
from kascade.storage.run_folder import RunFolder
from kascade.storage.uris import open_store
from kascade.version import __version__

PREDICATE = "urn:kascade:verdicts:v1"


def statement_of(layout: RunFolder, recipe: Recipe, reference: str) -> dict[str, Any]:
    """The statement about a checkpoint of a run, as `{subject, predicate}`, both plain JSON.

    Raises KascadeError for a checkpoint without a verdict or an end check: there is nothing to say about it.
    """
    line = list(walk(reference))
    own = line[0]
    verdicts = [found for one in line if (found := read_verdict(layout, one.manifest.id)) is not None]
    end = read_end_verdict(layout, reference)
    if not verdicts and end is None:
        raise KascadeError(f"{own.manifest.id} has no verdict, so there is nothing to sign")
    challenges = challenges_of(layout, reference)
    text = open_store(CheckpointRef.parse(reference).uri).read(MANIFEST)  # as it is: another version wrote it
    return {
        "subject": {MANIFEST: hashlib.sha256(text).hexdigest(), **own.manifest.files},
        "predicate": {
            "id": own.manifest.id,
            "checkpoint": own.digest,
            "base": None if own.manifest.base is None else CheckpointRef.parse(own.manifest.base).digest,
            "run": recipe.name,
            "recipe": hashlib.sha256(canonical_json(recipe.model_dump(mode="json")).encode()).hexdigest(),
            "code": __version__,
            "data": _rows(layout),
            "verdicts": {one.id: one.model_dump(mode="json") for one in verdicts},
            "end_check": None if end is None else end.model_dump(mode="json"),
            "challenges": [one.model_dump(mode="json") for one in challenges],
            "files": _digests(layout, line, verdicts, challenges),
            "signed": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def _rows(layout: RunFolder) -> dict[str, str]:
    """Digest of every source of rows, as preflight found them; files of this machine by their name."""
    try:
        noted = read_json(layout.preflight).get("data") or {}
    except (OSError, ValueError, AttributeError):  # an old run did not write it down
        return {}
    return {path if "://" in path else Path(path).name: digest for path, digest in noted.items()}


def _digests(
    layout: RunFolder, line: list[Ancestor], verdicts: list[Verdict], challenges: list[Challenge]
) -> dict[str, str]:
    """SHA-256 of the verdicts' files and of what they were made from, by path in the run's folder."""
    paths = {layout.verdict(one.id) for one in verdicts}
    paths |= set(_records(layout, line, challenges))
    digests = {one.digest for one in line} | {CheckpointRef.parse(one.champion).digest for one in challenges}
    for digest in digests:
        paths |= set(layout.score_files(digest))
    there = sorted(path for path in paths if path.is_file())
    return {path.relative_to(layout.root).as_posix(): file_digest(path) for path in there}


def _records(layout: RunFolder, line: list[Ancestor], challenges: list[Challenge]) -> Iterator[Path]:
    accepted = {one.digest for one in line}
    for outcome in read_outcomes(layout):
        if outcome.accepted and CheckpointRef.parse(outcome.accepted).digest in accepted:
            yield layout.outcome(outcome.stage, outcome.file_key)
    yield layout.end_verdict(line[0].digest)
    for one in challenges:
        champion = CheckpointRef.parse(one.champion).digest
        yield layout.challenge(line[0].digest, champion)
