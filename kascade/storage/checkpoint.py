"""Checkpoints: weights, tokenizer and a manifest. A URI names one, a digest identifies it.

A checkpoint exists only when its manifest does, and the manifest is written last.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from kascade.errors import CheckpointError
from kascade.storage import cache
from kascade.storage.address import is_remote, join_uri
from kascade.storage.files import exclusive, file_digest, write_text
from kascade.storage.manifest import (
    ACCEPTED,
    LOCATION,
    MANIFEST,
    OUR_FILES,
    REMEDY,
    CheckpointRef,
    Manifest,
    damage,
    file_names,
    is_manifest,
    local_path,
    manifest_text,
    parse_manifest,
)
from kascade.storage.store import Store
from kascade.storage.uris import open_store

__all__ = [
    "ACCEPTED",
    "base_of",
    "LOCATION",
    "MANIFEST",
    "OUR_FILES",
    "CheckpointRef",
    "Manifest",
    "damage",
    "data_folder",
    "file_digest",
    "is_manifest",
    "is_there",
    "local_path",
    "mark_accepted",
    "open_checkpoint",
    "parse_manifest",
    "point_to",
    "publish",
    "verify",
]


ABSENT = f"no {MANIFEST}, so there is no complete checkpoint here"


def publish(staged: Path, target: Path | str, manifest: Manifest) -> CheckpointRef:
    """Make a fully written folder a checkpoint: at `target` it exists as soon as its manifest does.

    target: a folder or its URI. `manifest.files` is filled in here. Idempotent, and safe between writers:
    an intact checkpoint already there is kept, and of several writers at once one wins. Returns the
    reference of the checkpoint that is there now. Raises StorageError.
    """
    files = {name: file_digest(staged / name) for name in file_names(staged)}
    manifest = manifest.model_copy(update={"files": files, "seal": None})
    manifest = manifest.model_copy(update={"seal": manifest.computed_seal})
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
    """Files are under the manifest's digest, so that writers with other contents never touch them."""
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
    """Where a remote checkpoint's files are, beside its manifest."""
    return manifest.digest[:16]


def _read_manifest(store: Store) -> Manifest | None:
    try:
        return parse_manifest(store.read(MANIFEST), f"{store.uri}/{MANIFEST}")
    except FileNotFoundError:
        return None


def open_checkpoint(where: Path | str) -> tuple[CheckpointRef, Manifest]:
    """Reference and manifest of the checkpoint in a folder or at a URI.

    A folder may hold a manifest and, in place of weights, the address of a remote checkpoint (`point_to`).
    Raises CheckpointError when there is none, StorageError when the store cannot be asked.
    """
    if isinstance(where, str) and is_remote(where):
        manifest = _read_manifest(open_store(where))
        if manifest is None:
            raise CheckpointError(f"{where}: {ABSENT}. {REMEDY}")
        return CheckpointRef(where, manifest.digest), manifest
    folder = where if isinstance(where, Path) else local_path(where)
    path, pointer = folder / MANIFEST, folder / LOCATION
    try:
        if not path.exists():
            raise CheckpointError(f"{folder}: {ABSENT}. {REMEDY}")
        manifest = parse_manifest(path.read_bytes(), str(path))
        uri = pointer.read_text(encoding="utf-8").strip() if pointer.exists() else folder.resolve().as_uri()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: cannot be read: {error}. {REMEDY}") from error
    if pointer.exists() and not uri.startswith(("s3://", "file:///")):
        raise CheckpointError(f"{pointer}: holds no address of a checkpoint. {REMEDY}")
    return CheckpointRef(uri, manifest.digest), manifest


def point_to(ref: CheckpointRef, folder: Path) -> None:
    """Let `folder` stand for a remote checkpoint: its manifest, so that lineage is read without asking the
    store, and its address."""
    _, manifest = open_checkpoint(ref.uri)
    write_text(folder / LOCATION, ref.uri + "\n")
    write_text(folder / MANIFEST, manifest_text(manifest))


def mark_accepted(reference: str, run: str) -> None:
    """Say in a shared place that a run continues from this checkpoint, for runs that did not accept it."""
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
        what = f"{ref.uri} holds {found.digest[:12]}, but {ref.digest[:12]} was asked for"
        raise CheckpointError(f"{what}. To do: name the checkpoint that is meant, with its own digest")
    folder = _fetched(ref, manifest) if ref.is_remote else ref.path
    if problem := damage(folder, manifest):
        if ref.is_remote:
            cache.forget(ref.digest)
        raise CheckpointError(f"{problem}. {REMEDY}")
    return folder, manifest


def base_of(folder: Path) -> tuple[str, Path]:
    """Reference and folder of the model that the adapter in `folder` belongs to, every file checked.

    A run's folder may have moved: a base that is not where the manifest says is looked for beside the
    adapter's own stage. Raises CheckpointError when there is none, or the folder holds no adapter.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise CheckpointError(f"{folder}: an adapter without {MANIFEST} does not say what its base is")
    manifest = parse_manifest(path.read_bytes(), str(path))
    if manifest.base is None:
        raise CheckpointError(f"{path}: names no base")
    if not is_there(manifest.base):
        digest = CheckpointRef.parse(manifest.base).digest
        for other in sorted(folder.parent.parent.glob(f"*/*/{MANIFEST}")):
            found, _ = open_checkpoint(other.parent)
            if found.digest == digest:
                return str(found), verify(str(found))[0]
    return manifest.base, verify(manifest.base)[0]


def _fetched(ref: CheckpointRef, manifest: Manifest) -> Path:
    store = open_store(join_uri(ref.uri, data_folder(manifest)))
    try:
        folder = cache.fetch(store, ref.digest, manifest.files)
    except FileNotFoundError as error:
        raise CheckpointError(f"{ref.uri}: {error}") from error
    if manifest.base is not None:  # an adapter's folder says what its base is
        write_text(folder / MANIFEST, manifest_text(manifest))
    return folder
