"""Checkpoints: weights, tokenizer and a manifest. A URI names one, a digest identifies it.

A checkpoint exists only when its manifest does, and the manifest is written last.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from pydantic import BaseModel, ConfigDict

from kascade.errors import CheckpointError
from kascade.storage import cache
from kascade.storage.files import exclusive, file_digest, write_text
from kascade.storage.store import Store
from kascade.storage.uris import is_remote, join_uri, open_store

__all__ = [
    "ACCEPTED",
    "LOCATION",
    "MANIFEST",
    "CheckpointRef",
    "Manifest",
    "data_folder",
    "file_digest",
    "is_there",
    "local_path",
    "mark_accepted",
    "open_checkpoint",
    "parse_manifest",
    "point_to",
    "publish",
    "verify",
]
MANIFEST = "manifest.json"
ACCEPTED = "accepted"  # beside the manifest of a checkpoint in a shared place, once a run went on from it
LOCATION = "location"  # in a run's folder, beside the manifest of a checkpoint that lies in a bucket


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

    @property
    def is_remote(self) -> bool:
        return is_remote(self.uri)


def local_path(uri: str) -> Path:
    """The folder behind a `file://` URI. Raises CheckpointError for any other scheme."""
    parsed = urlparse(uri)
    if parsed.scheme != "file":
        raise CheckpointError(f"{uri}: only a file:// address is a folder here")
    return Path(unquote(parsed.path))


def publish(staged: Path, target: Path | str, manifest: Manifest) -> CheckpointRef:
    """Make a fully written folder a checkpoint: at `target` it exists as soon as its manifest does.

    target: a folder or its URI. `manifest.files` is filled in here. Idempotent, and safe between writers:
    an intact checkpoint already there is kept, and of several writers at once one wins. Returns the
    reference of the checkpoint that is there now. Raises StorageError.
    """
    files = {
        p.relative_to(staged).as_posix(): file_digest(p) for p in sorted(staged.rglob("*")) if p.is_file()
    }
    manifest = manifest.model_copy(update={"files": files})
    if isinstance(target, str) and is_remote(target):
        return _publish_remote(staged, target, manifest)
    return _publish_here(staged, target if isinstance(target, Path) else local_path(target), manifest)


def _publish_here(staged: Path, target: Path, manifest: Manifest) -> CheckpointRef:
    """Files and manifest take their place together: a folder is renamed whole or not at all."""
    with exclusive(target):
        if (target / MANIFEST).exists():
            shutil.rmtree(staged, ignore_errors=True)
        else:
            source = _beside(staged, target)
            write_text(source / MANIFEST, manifest_text(manifest))
            shutil.rmtree(target, ignore_errors=True)  # what an interrupted copy left, never a checkpoint
            source.rename(target)
    return open_checkpoint(target)[0]


def _beside(staged: Path, target: Path) -> Path:
    """`staged` itself, or a copy on the target's file system, where it can be renamed."""
    if staged.stat().st_dev == target.parent.stat().st_dev:
        return staged
    copy = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    shutil.copytree(staged, copy, dirs_exist_ok=True)
    shutil.rmtree(staged)
    return copy


def _publish_remote(staged: Path, uri: str, manifest: Manifest) -> CheckpointRef:
    """Files lie under the manifest's digest, so that writers with other contents never touch them."""
    store = open_store(uri)
    if (known := _read_manifest(store)) is None:
        for name in manifest.files:
            store.upload(staged / name, f"{data_folder(manifest)}/{name}")
        store.create(MANIFEST, manifest_text(manifest).encode())
        known = _read_manifest(store)
        if known is None:
            raise CheckpointError(f"{uri}: the manifest vanished while it was written")
    if known.digest == manifest.digest:
        cache.adopt(staged, manifest.digest)
    return CheckpointRef(uri, known.digest)


def data_folder(manifest: Manifest) -> str:
    """Where a remote checkpoint's files lie, beside its manifest."""
    return manifest.digest[:16]


def manifest_text(manifest: Manifest) -> str:
    return manifest.model_dump_json(indent=1) + "\n"


def _read_manifest(store: Store) -> Manifest | None:
    try:
        return parse_manifest(store.read(MANIFEST), f"{store.uri}/{MANIFEST}")
    except FileNotFoundError:
        return None


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Raises CheckpointError."""
    try:
        return Manifest.model_validate_json(text)
    except ValueError as error:
        raise CheckpointError(f"{where}: not a checkpoint manifest: {error}") from error


def open_checkpoint(where: Path | str) -> tuple[CheckpointRef, Manifest]:
    """Reference and manifest of the checkpoint in a folder or at a URI.

    A folder may hold a manifest and, in place of weights, the address of a remote checkpoint (`point_to`).
    Raises CheckpointError when there is none, StorageError when the store cannot be asked.
    """
    if isinstance(where, str) and is_remote(where):
        manifest = _read_manifest(open_store(where))
        if manifest is None:
            raise CheckpointError(f"{where}: no {MANIFEST}, so there is no (complete) checkpoint here")
        return CheckpointRef(where, manifest.digest), manifest
    folder = where if isinstance(where, Path) else local_path(where)
    path = folder / MANIFEST
    if not path.exists():
        raise CheckpointError(f"{folder}: no {MANIFEST}, so there is no (complete) checkpoint here")
    manifest = parse_manifest(path.read_bytes(), str(path))
    pointer = folder / LOCATION
    uri = pointer.read_text(encoding="utf-8").strip() if pointer.exists() else folder.resolve().as_uri()
    return CheckpointRef(uri, manifest.digest), manifest


def point_to(ref: CheckpointRef, folder: Path) -> None:
    """Let `folder` stand for a remote checkpoint: its manifest, so that lineage is read without asking the
    store, and its address."""
    _, manifest = open_checkpoint(ref.uri)
    write_text(folder / LOCATION, ref.uri + "\n")
    write_text(folder / MANIFEST, manifest_text(manifest))


def mark_accepted(reference: str, run: str) -> None:
    """Say in a shared place that a run goes on from this checkpoint: runs that did not accept it see that."""
    open_store(CheckpointRef.parse(reference).uri).create(ACCEPTED, f"{run}\n".encode())


def is_there(reference: str) -> bool:
    """Whether a checkpoint and all its files are where the reference says; contents are not looked at."""
    try:
        ref = CheckpointRef.parse(reference)
        found, manifest = open_checkpoint(ref.uri)
    except CheckpointError:
        return False
    if found.digest != ref.digest:
        return False
    if not ref.is_remote:
        return all((ref.path / name).is_file() for name in manifest.files)
    prefix = f"{data_folder(manifest)}/"
    present = {one.name.removeprefix(prefix) for one in open_store(ref.uri).entries(prefix)}
    return present >= set(manifest.files)


def verify(reference: str) -> tuple[Path, Manifest]:
    """Folder and manifest behind a reference, after every file's digest was checked.

    A remote checkpoint is fetched into the cache. Raises CheckpointError naming the file when the contents
    are not what the reference asks for, StorageError when the store fails.
    """
    ref = CheckpointRef.parse(reference)
    found, manifest = open_checkpoint(ref.uri)
    if found.digest != ref.digest:
        raise CheckpointError(f"{ref.uri} holds {found.digest[:12]}, but {ref.digest[:12]} was asked for")
    folder = _fetched(ref, manifest) if ref.is_remote else ref.path
    for name, digest in manifest.files.items():
        path = folder / name
        if not path.exists() or file_digest(path) != digest:
            if ref.is_remote:
                cache.forget(ref.digest)
            raise CheckpointError(f"{path}: missing or changed since the checkpoint was written")
    return folder, manifest


def _fetched(ref: CheckpointRef, manifest: Manifest) -> Path:
    store = open_store(join_uri(ref.uri, data_folder(manifest)))
    try:
        return cache.fetch(store, ref.digest, manifest.files)
    except FileNotFoundError as error:
        raise CheckpointError(f"{ref.uri}: {error}") from error
