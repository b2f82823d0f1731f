"""Removing folders that untrusted programs filled: never raises, off the grading path, bounded in time.

A program may nest folders deeper than any path is long, make very many files, and take rights away. So
nothing here recurses, every step goes by descriptor, and a thread of its own does the work.
"""

from __future__ import annotations

import atexit
import logging
import os
import stat
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

SECONDS = 30.0  # of one folder, after which what is left of it stays and is logged
END_SECONDS = 5.0  # that the end of the process waits for folders not yet removed
GRAVEYARD = "kascade-removed-"  # what a folder is called while it waits

_waiting: deque[str] = deque()
_threads: list[threading.Thread] = []


def discard(folder: str | Path) -> None:
    """Take a folder away: out of its place at once, from the disk soon. Never raises."""
    path = Path(folder)
    grave = path.with_name(f"{GRAVEYARD}{os.getpid()}-{time.monotonic_ns()}-{path.name}")
    try:
        path.rename(grave)
    except (OSError, ValueError):
        grave = path
    _waiting.append(str(grave))
    _dig()


def settle(seconds: float) -> bool:
    """Wait until nothing waits to be removed, at most so long; whether that was enough."""
    deadline = time.monotonic() + seconds
    while _waiting or any(thread.is_alive() for thread in _threads):
        if time.monotonic() > deadline:
            return False
        _dig()
        time.sleep(0.002)
    return True


def _dig() -> None:
    """Make sure that a thread removes what waits. A second one, where two meet here, does no harm."""
    if any(thread.is_alive() for thread in _threads):
        return
    thread = threading.Thread(target=_work, name="sandbox-cleaning", daemon=True)
    with suppress(RuntimeError):  # this process ends, or may start no more threads: settle() tries again
        thread.start()
        _threads[:] = [thread]


def _work() -> None:
    while True:
        try:
            folder = _waiting.popleft()
        except IndexError:
            return
        if not remove(folder, SECONDS):
            log.warning("%s: not all of what a program left there could be removed", folder)


def remove(folder: str, seconds: float) -> bool:
    """Remove a folder with all in it, at most so long. Whether nothing is left. Never raises.

    Goes down by descriptors of one folder at a time. One that is too deep is moved up into the root, so
    that neither the stack nor the length of a path bounds the depth.
    """
    deadline = time.monotonic() + seconds
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except ValueError:  # no path at all
        return True
    except OSError:
        return not os.path.lexists(folder)
    try:
        return _emptied(root, deadline) and _removed(folder)
    except Exception as error:
        log.warning("%s: %s while it was removed", folder, type(error).__name__)
        return False
    finally:
        os.close(root)


def _removed(folder: str) -> bool:
    with suppress(OSError):
        Path(folder).rmdir()
    return not os.path.lexists(folder)


def _emptied(root: int, deadline: float) -> bool:
    """Remove all in a folder: files of the folders right in it, whose own folders move up beside them."""
    number = 0
    while True:
        with suppress(OSError):
            os.fchmod(root, 0o700)
        names = os.listdir(root)
        if not names:
            return True
        progress = False
        for name in names:
            if time.monotonic() > deadline:
                return False
            if _unlinked(name, root):
                progress = True
                continue
            number, moved = _flattened(name, root, number, deadline)
            progress |= moved
        if not progress:
            return False


def _unlinked(name: str, parent: int) -> bool:
    """Whether an entry is gone now: a file, a link, an empty folder."""
    try:
        kind = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        (os.rmdir if stat.S_ISDIR(kind) else os.unlink)(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _flattened(name: str, root: int, number: int, deadline: float) -> tuple[int, bool]:
    """Remove a folder's files, move its folders into the root. The next free number; whether it helped."""
    try:
        with suppress(OSError):
            os.chmod(name, 0o700, dir_fd=root)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    except OSError:
        return number, False
    helped = False
    try:
        for inner in os.listdir(below):  # noqa: PTH208 - a descriptor
            if time.monotonic() > deadline:
                break
            if _unlinked(inner, below):
                helped = True
                continue
            number += 1
            with suppress(OSError):
                os.chmod(inner, 0o700, dir_fd=below)
            with suppress(OSError):
                os.rename(inner, f".{number}-{os.getpid()}", src_dir_fd=below, dst_dir_fd=root)
                helped = True
    except OSError:
        pass
    finally:
        os.close(below)
    return number, _unlinked(name, root) or helped


def _forget() -> None:
    """In a forked child: what waits is the parent's to remove."""
    _waiting.clear()
    _threads.clear()


os.register_at_fork(after_in_child=_forget)


@atexit.register
def _at_the_end() -> None:
    settle(END_SECONDS)
