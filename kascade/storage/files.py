"""Small files, written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FILE_BITS, LINE_BITS = 64, 32  # of the checksum behind a JSON file, and behind a line of one
# What a disk says that takes nothing more: full, read-only, or not ours.
DISK = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO))
OS_ERROR = re.compile(r"\(os error (\d+)\)")
ROOM = "make room there and check its rights, or name another place"
_UMASK = os.umask(0o022)  # it can only be read by setting it
os.umask(_UMASK)


def is_folder(path: Path) -> bool:
    """Whether there is a folder, also for names that no file can have (too long, NUL): those are none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether there is a file; see `is_folder`."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_absent(path: str) -> bool:
    """Whether nothing is there. A path that cannot be looked at is not known to be absent."""
    try:
        expanded(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def expanded(path: str) -> Path:
    """A path with `~` as the home folder, where there is such a user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def share(path: Path) -> None:
    """Give a file, or a folder and all that is in it, the rights that new ones have here.

    Temporary files and what safetensors writes are private, and a run is read by others: by a notebook, by
    an inference server, on the same volume under another user.
    """
    for one in (path, *path.rglob("*")) if path.is_dir() else (path,):
        one.chmod((0o777 if one.is_dir() else 0o666) & ~_UMASK)


def write_text(path: Path, text: str) -> None:
    """Write atomically: a reader sees the old file or the new one, never half of it."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            share(Path(temporary))
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def disk_words(error: OSError) -> str:
    """What a disk's error says to a user: the place, why, and what to do."""
    return f"{error.filename or 'a file'}: {error.strerror}. To do: {ROOM}. The same command continues"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an error of the disk one of `path`: of a temporary file, or of no name, it would say nothing."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK:
            error.filename, error.filename2 = str(path), None
        raise
    except Exception as error:  # safetensors raises its own, with the system's number in its text
        found = OS_ERROR.search(str(error))
        if found is None or int(found[1]) not in DISK:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def write_json(path: Path, value: Any) -> None:
    write_record(path, json.dumps(value, indent=1, ensure_ascii=False))


def read_json(path: Path) -> Any:
    """Raises ValueError for what is no JSON, or has changed since `write_json` wrote it."""
    content = path.read_bytes()
    refuse_changed(content)
    return json.loads(content)


def write_record(path: Path, text: str) -> None:
    """Write a JSON text atomically, with a checksum behind it that other readers of JSON do not see."""
    write_text(path, sealed(text, FILE_BITS))


def sealed(text: str, bits: int) -> str:
    """A JSON text with its checksum, a white space for each bit: JSON may end so. A line has no breaks, and a
    file no tabs, which readers of YAML refuse."""
    signs = " \n" if bits == FILE_BITS else " \t"
    number = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[: bits // 8])
    return text + "".join(signs[number >> place & 1] for place in range(bits)) + "\n"


def refuse_changed(content: bytes, bits: int = FILE_BITS) -> None:
    """Raise ValueError when a sealed text is not what was written; one without a checksum may be anything."""
    text = content.rstrip(b" \t\n")
    if len(content) - len(text) != bits + 1:
        return
    try:
        intact = sealed(text.decode("utf-8"), bits).encode() == content
    except UnicodeDecodeError:
        intact = False
    if not intact:
        raise ValueError("changed since it was written")


def is_whole_line(line: bytes) -> bool:
    """Whether a line of a JSONL file is JSON, and what was written."""
    try:
        json.loads(line)
        refuse_changed(line, LINE_BITS)
    except (ValueError, RecursionError):
        return False
    return True


def keep_whole_lines(path: Path) -> int:
    """Take out the lines that have changed since they were written; returns how many those were."""
    lines = path.read_bytes().splitlines(keepends=True)
    torn = lines[-1:] if lines and not lines[-1].endswith(b"\n") else []  # by a kill: writers know it
    whole = [line for line in lines if is_whole_line(line) and line not in torn]
    lost = len(lines) - len(whole) - len(torn)
    if lost:
        write_text(path, b"".join(whole).decode("utf-8"))
    return lost


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_of(value: Any) -> str:
    """SHA-256 of a JSON value, in hex: what a file says about itself, so that a flipped bit in it shows."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One process or thread at a time: a folder's lock is a file beside it and ends with its holder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("a") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield
