"""What is in buckets as folders here: fetched once, checked, used by every process of this machine.

KASCADE_CACHE names the folder (by default ~/.cache/kascade). Each checkpoint is under its digest, each file
of rows under its address and version, so what is there never changes; `prune` removes what was used longest
ago.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from kascade.storage.files import exclusive
from kascade.storage.store import Store

WHOLE = ".whole"  # a file that is written last; its time says when the entry was last used

COPIED_BYTES = 8 * 1024**2  # at a time


def cache_folder() -> Path:
    named = os.environ.get("KASCADE_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "kascade"


def entry(digest: str) -> Path:
    return cache_folder() / "checkpoints" / digest


def fetch(store: Store, digest: str, files: Mapping[str, str]) -> Path:
    """The checkpoint's folder. files: SHA-256 by name. What an interrupted fetch has brought is used.

    Raises StorageError, or FileNotFoundError when the store has lost a file.
    """
    folder = entry(digest)
    with exclusive(folder):
        if not (folder / WHOLE).exists():
            for name, sha256 in files.items():
                if not (folder / name).exists():
                    store.download(name, folder / name, sha256)
        (folder / WHOLE).touch()
    return folder


def copy_of(uri: str, version: str, content: BinaryIO) -> Path:
    """A file of a bucket here; `version` changes when its contents do. Read from `content` where need be."""
    key = hashlib.sha256(f"{uri}\n{version}".encode()).hexdigest()
    folder = cache_folder() / "rows" / key
    path = folder / uri.rpartition("/")[2]
    with exclusive(folder):
        if not (folder / WHOLE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file, COPIED_BYTES)
        (folder / WHOLE).touch()
    return path


def adopt(staged: Path, digest: str) -> None:
    """Take over a folder whose contents were just published, so that the next step need not fetch it."""
    folder = entry(digest)
    with exclusive(folder):
        if (folder / WHOLE).exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(staged, folder)
        (folder / WHOLE).touch()


def forget(digest: str) -> None:
    """Remove a checkpoint whose files have changed here."""
    with exclusive(entry(digest)):
        shutil.rmtree(entry(digest), ignore_errors=True)


def prune(max_bytes: int) -> list[str]:
    """Remove whole entries, those used longest ago first, until the rest fits. Returns their digests."""
    found = sorted(cache_folder().glob(f"*/*/{WHOLE}"), key=lambda path: path.stat().st_mtime)
    sizes = {mark.parent: _size(mark.parent) for mark in found}
    removed = []
    for folder in list(sizes):
        if sum(sizes.values()) <= max_bytes:
            break
        trash = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
        with exclusive(folder):
            folder.rename(trash)  # whoever has it open keeps it
        shutil.rmtree(trash)
        removed.append(folder.name)
        del sizes[folder]
    return removed


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
