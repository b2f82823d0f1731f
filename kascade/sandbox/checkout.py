"""An agent's checkout: a folder of its own, written and read from outside without following its links."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from kascade.sandbox.cleaning import discard
from kascade.sandbox.watcher import entries

MOST_ENTRIES = 50_000  # files and folders of a checkout that are looked at
MOST_FILE_BYTES = 1024**2  # files beyond this are no source that anybody edited


class CheckoutError(ValueError):
    """A path that leaves the checkout, is not there, or is no text file."""


class Checkout:
    """A repository's files in a temporary folder, in which an agent's commands work."""

    def __init__(self, files: Mapping[str, str]) -> None:
        """Raises CheckoutError when a path is not within the checkout."""
        self.folder = Path(tempfile.mkdtemp(prefix="kascade-checkout-"))
        for path, text in files.items():
            self.write(path, text)

    def read(self, path: str) -> str:
        """Raises CheckoutError."""
        *folders, name = _parts(path)
        try:
            with _Opened(self.folder, folders) as parent:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                fd = os.open(name, flags, dir_fd=parent)
                try:
                    if not stat.S_ISREG(os.fstat(fd).st_mode):
                        raise CheckoutError(f"{path}: is not a file")
                    return os.read(fd, MOST_FILE_BYTES).decode("utf-8")
                finally:
                    os.close(fd)
        except (OSError, UnicodeDecodeError) as error:
            raise CheckoutError(f"{path}: {_why(error)}") from error

    def write(self, path: str, text: str) -> None:
        """Make or replace a file, with its folders. Raises CheckoutError."""
        *folders, name = _parts(path)
        try:
            with _Opened(self.folder, folders, make=True) as parent:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
                fd = os.open(name, flags, 0o644, dir_fd=parent)
                with os.fdopen(fd, "w", encoding="utf-8") as file:
                    file.write(text)
        except (OSError, UnicodeEncodeError) as error:
            raise CheckoutError(f"{path}: {_why(error)}") from error

    def paths(self) -> Iterator[str]:
        """Every regular file, links left out, in order; of very many, the first that are found."""
        found = [
            entry.relative_to(self.folder).as_posix()
            for entry, kind in entries(self.folder, MOST_ENTRIES)
            if stat.S_ISREG(kind.st_mode)
        ]
        yield from sorted(found)

    def texts(self, ending: str) -> dict[str, str]:
        """Text of each readable file whose name ends so."""
        found = {}
        for path in self.paths():
            if path.endswith(ending):
                try:
                    found[path] = self.read(path)
                except CheckoutError:
                    continue
        return found

    def close(self) -> None:
        discard(self.folder)


class _Opened:
    """Descriptor of a folder within a root, each step of the way there opened without following links."""

    def __init__(self, root: Path, folders: list[str], *, make: bool = False) -> None:
        self._root, self._folders, self._make = root, folders, make

    def __enter__(self) -> int:
        self._fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in self._folders:
                if self._make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o755, dir_fd=self._fd)
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._fd)
                os.close(self._fd)
                self._fd = below
        except OSError:
            os.close(self._fd)
            raise
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _parts(path: str) -> list[str]:
    pure = PurePosixPath(path)
    parts = [part for part in pure.parts if part != "."]
    if pure.is_absolute() or ".." in parts or not parts or "\0" in path:
        raise CheckoutError(f"{path!r}: paths are relative to the checkout and stay within it")
    return parts


def _why(error: Exception) -> str:
    return (error.strerror or "cannot be used") if isinstance(error, OSError) else "is not UTF-8 text"
