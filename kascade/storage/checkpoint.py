"""Checkpoints: weights, tokenizer and a manifest. A URI names one, a digest identifies it.

A checkpoint exists only when its manifest does, and the manifest is written last.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ConfigDict

from kascade.errors import CheckpointError
from kascade.storage.files import write_text

MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """What a checkpoint is made of and where it comes from.

    id: `<stage>/<attempt>-<key>`. parent: reference of the checkpoint it was trained from.
    teachers: references of the checkpoints it was distilled from, by domain.
    files: SHA-256 of each file. created: ISO 8601, UTC.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    stage: str
    attempt: str
    key: str
    parent: str | None
    teachers: dict[str, str] = {}
    fingerprint: str
    code_version: str
    created: str
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """Identity of the checkpoint: a hash over its id and its files' hashes.

        The id is part of it because a stage that made no update has its parent's weights, and is
        another checkpoint all the same.
        """
        lines = f"{self.id}\n" + "".join(f"{name} {digest}\n" for name, digest in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """`URI@sha256:DIGEST`: what travels between steps."""

    uri: str
    digest: str

    def __str__(self) -> str:
        return f"{self.uri}@sha256:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> CheckpointRef:
        uri, separator, digest = text.rpartition("@sha256:")
        if not separator or not uri or len(digest) != 64:
            raise CheckpointError(f"{text!r} is not a checkpoint reference (URI@sha256:DIGEST)")
        return cls(uri, digest)

    @property
    def path(self) -> Path:
        return local_path(self.uri)


def local_path(uri: str) -> Path:
    """The folder behind a `file://` URI. Raises CheckpointError for any other scheme."""
    parsed = urlparse(uri)
    if parsed.scheme != "file":
        raise CheckpointError(f"{uri}: this version reads and writes file:// only")
    return Path(unquote(parsed.path))


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def publish(staged: Path, target: Path, manifest: Manifest) -> CheckpointRef:
    """Move a fully written folder to its place and make it exist by writing its manifest last.

    `manifest.files` is filled in here. Idempotent: an intact checkpoint already there is kept.
    """
    files = {
        p.relative_to(staged).as_posix(): file_digest(p) for p in sorted(staged.rglob("*")) if p.is_file()
    }
    manifest = manifest.model_copy(update={"files": files})
    if (target / MANIFEST).exists():
        return open_checkpoint(target)[0]
    shutil.rmtree(target, ignore_errors=True)  # no manifest: an interrupted copy, never a checkpoint
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.rename(target)
    except OSError:  # another file system
        shutil.copytree(staged, target)
        shutil.rmtree(staged)
    write_text(target / MANIFEST, manifest.model_dump_json(indent=1) + "\n")
    return CheckpointRef(target.resolve().as_uri(), manifest.digest)


def open_checkpoint(folder: Path) -> tuple[CheckpointRef, Manifest]:
    """Reference and manifest of the checkpoint in `folder`. Raises CheckpointError when there is none."""
    path = folder / MANIFEST
    if not path.exists():
        raise CheckpointError(f"{folder}: no {MANIFEST}, so there is no (complete) checkpoint here")
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not a checkpoint manifest: {error}") from error
    return CheckpointRef(folder.resolve().as_uri(), manifest.digest), manifest


def verify(reference: str) -> tuple[Path, Manifest]:
    """Folder and manifest behind a reference, after every file's digest was checked.

    Raises CheckpointError naming the file when the contents are not what the reference asks for.
    """
    ref = CheckpointRef.parse(reference)
    found, manifest = open_checkpoint(ref.path)
    if found.digest != ref.digest:
        raise CheckpointError(f"{ref.uri} holds {found.digest[:12]}, but {ref.digest[:12]} was asked for")
    for name, digest in manifest.files.items():
        path = ref.path / name
        if not path.exists() or file_digest(path) != digest:
            raise CheckpointError(f"{path}: missing or changed since the checkpoint was written")
    return ref.path, manifest
