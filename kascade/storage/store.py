"""One face for the places that files are kept in; names are relative, with `/` between their parts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from kascade.errors import StorageError
from kascade.storage.files import ROOM, file_digest, share


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a store. size in bytes; modified with time zone."""

    name: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An upload that was begun and neither finished nor given up."""

    name: str
    upload_id: str
    begun: datetime


class Store(Protocol):
    """Files under one root. What is written is there whole or not at all."""

    @property
    def uri(self) -> str: ...

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Read-only and seekable. Raises FileNotFoundError."""
        ...

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file unless there is one; of several writers exactly one gets True."""
        ...

    def upload(self, path: Path, name: str) -> None:
        """Copy a file into the store; an upload that was cut is continued."""
        ...

    def download(self, name: str, path: Path, sha256: str) -> None:
        """Copy a file out of the store, continue a cut copy, and check its digest (hex).

        Raises FileNotFoundError; StorageError when the disk is full or the contents are others.
        """
        ...

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """Every file whose name begins with `prefix`, in order of names."""
        ...

    def delete(self, name: str) -> None:
        """No error when there is no such file."""
        ...

    def unfinished(self) -> Iterator[Unfinished]: ...

    def give_up(self, upload: Unfinished) -> None:
        """Remove the parts of an unfinished upload."""
        ...


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A folder."""

    root: Path

    @property
    def uri(self) -> str:
        return self.root.resolve().as_uri()

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        return (self.root / name).open("rb")

    def create(self, name: str, data: bytes) -> bool:
        return create_file(self.root / name, data)

    def upload(self, path: Path, name: str) -> None:
        copy_checked(path, self.root / name, file_digest(path))

    def download(self, name: str, path: Path, sha256: str) -> None:
        copy_checked(self.root / name, path, sha256)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if path.is_file() and name.startswith(prefix):
                stat = path.stat()
                yield Entry(name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))

    def delete(self, name: str) -> None:
        """Folders that are empty afterwards go too."""
        path = self.root / name
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self.root or not folder.is_dir() or any(folder.iterdir()):
                return
            folder.rmdir()

    def unfinished(self) -> Iterator[Unfinished]:
        return iter(())

    def give_up(self, upload: Unfinished) -> None:
        raise StorageError(f"{self.root / upload.name}: a folder has no unfinished uploads")


def create_file(path: Path, data: bytes) -> bool:
    """Write `path` unless it is there; of several processes exactly one gets True."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        share(Path(temporary))
        os.link(temporary, path)  # fails when the name is taken, also over NFS
    except FileExistsError:
        return False
    finally:
        Path(temporary).unlink(missing_ok=True)
    return True


def copy_checked(source: Path, target: Path, sha256: str) -> None:
    """Copy a file whole or not at all. Raises StorageError when the disk is full or the digest another."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        shutil.copyfile(source, temporary)
        if file_digest(Path(temporary)) != sha256:
            raise StorageError(f"{source}: its contents are not those that were asked for")
        share(Path(temporary))
        Path(temporary).replace(target)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise StorageError(f"{target} cannot be written: {error.strerror}. To do: {ROOM}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
