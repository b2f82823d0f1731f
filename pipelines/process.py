"""A run's processes: one run a folder, and none of its processes outlives it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from kascade.errors import Fault, UserError
from kascade.storage.files import naming

KILLED_S = 3.0  # for the kernel to end what was killed
DYING_S = 30.0  # for the processes of a run whose command is gone to end, on a machine with much to do


@contextlib.contextmanager
def folder_lock(path: Path, patience_s: float = 3.0) -> Iterator[int]:
    """Hold the lock of a run's folder. Yields its descriptor; a process that inherits it holds it too.

    The lock ends with its holders, however they end. Raises UserError when another run has it: after
    `patience_s` seconds, or after `DYING_S` where that run's command is gone and its processes still end.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+", encoding="utf-8")
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        remedy = "make room there and check its rights, or name another folder"
        raise UserError(Fault(str(path.parent.parent), what, remedy=remedy)) from error
    with opened as file:
        began = time.monotonic()  # a run just killed may still be dying
        while not _lock(file.fileno()):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            is_gone = holder.isdigit() and not psutil.pid_exists(int(holder))
            if time.monotonic() - began > (max(patience_s, DYING_S) if is_gone else patience_s):
                what = f"another run (process {holder}) is using this folder"
                remedy = "wait for it, stop it, or name another folder with --out"
                raise UserError(Fault(str(path.parent.parent), what, remedy=remedy))
            time.sleep(0.1)
        with naming(path):
            file.truncate(0)
            os.write(file.fileno(), str(os.getpid()).encode())
        yield file.fileno()


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def process_group(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Path,
    inherit: Sequence[int] = (),
    grace_s: float = 3.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command as the leader of its own process group, which is gone when the block is left.

    The command's last argument will be the descriptor of a pipe for `die_with_starter`: this process
    holds the other end, so the group ends with it even when it is killed. Output is appended to `log`.
    grace_s: how long it may take to end when it is asked to.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*command, str(reading)],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(reading, *inherit),
                start_new_session=True,
            )
        try:
            yield process
        finally:
            stop_group(process, grace_s)
    finally:
        os.close(reading)
        os.close(writing)


def stop_group(process: subprocess.Popen[bytes], grace_s: float = 3.0) -> None:
    """End a process group: SIGTERM, then SIGKILL; children that left the group are ended too."""
    family = _family(process)
    for number, patience_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILLED_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        deadline = time.monotonic() + patience_s
        while (process.poll() is None or any(map(_alive, family))) and time.monotonic() < deadline:
            time.sleep(0.02)


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The leader's descendants, and whoever else is in its group (their parent may be gone)."""
    found: dict[int, psutil.Process] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        found = {child.pid: child for child in psutil.Process(process.pid).children(recursive=True)}
    for other in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(other.pid) == process.pid and other.pid != process.pid:
                found[other.pid] = other
    return list(found.values())


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def die_with_starter(lifeline: int) -> None:
    """In the leader of a process group: kill the whole group once the process that started it is gone."""

    def wait() -> None:
        os.read(lifeline, 1)  # returns when the other end is closed, which the kernel does for the dead
        os.killpg(os.getpgid(0), signal.SIGKILL)

    os.set_inheritable(lifeline, False)
    threading.Thread(target=wait, daemon=True).start()
