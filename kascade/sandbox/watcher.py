"""Watches a sandboxed command from outside: waits for its end, or ends it when a limit is passed."""

from __future__ import annotations

import os
import resource
import select
import signal
import stat
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

TICK_SECONDS = 0.05  # how often the clock, memory and output are looked at
SIZE_TICKS = 10  # how many of those until the size of folders is, which takes longer


def watch(order: dict[str, Any], keeper: int, control: int, stdout: int) -> dict[str, Any]:
    """Wait for the end or bring it about; then kill what is left. How it ended."""
    limits, deadline = order["limits"], time.monotonic() + order["limits"]["wall_seconds"]
    ended = os.pidfd_open(keeper)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    poll.register(control, select.POLLIN)
    stopped, status, ticks = None, None, 0
    while status is None and stopped is None:
        left = max(0.0, deadline - time.monotonic())
        ready = dict(poll.poll(1000 * min(TICK_SECONDS, left)))
        if ended in ready:
            _, status = os.waitpid(keeper, 0)
        elif control in ready:
            stopped = "asked to"
        elif time.monotonic() >= deadline:
            stopped = "time"
        else:
            stopped = _beyond(limits, order["own"] if ticks % SIZE_TICKS == SIZE_TICKS - 1 else [], stdout)
        ticks += 1
    _kill_all(keeper if status is None else None)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL
    return {"status": code, "stopped": stopped, "cpu_seconds": used.ru_utime + used.ru_stime}


def _beyond(limits: dict[str, Any], folders: list[str], stdout: int) -> str | None:
    """Which limit of the command as a whole is passed; single processes are the kernel's to limit."""
    if os.fstat(stdout).st_size > limits["output_bytes"]:
        return "output"
    if sum(map(_resident_bytes, _descendants())) > limits["memory_bytes"]:
        return "memory"
    if any(_too_full(folder, limits) for folder in folders):
        return "size"
    return None


def _descendants() -> Iterator[int]:
    found = [os.getpid()]
    while found:
        parent = found.pop()
        try:
            threads = list(os.scandir(f"/proc/{parent}/task"))
            text = " ".join(Path(f"{thread.path}/children").read_text() for thread in threads)
        except OSError:
            continue
        children = [int(child) for child in text.split()]
        found += children
        yield from children


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def _too_full(folder: str, limits: dict[str, Any]) -> bool:
    """Whether a folder holds more bytes, or more files and folders, than it may."""
    most: int = limits["folder_entries"]
    count, total = 0, 0
    for _, kind in entries(Path(folder), most + 1):
        count += 1
        total += kind.st_blocks * 512
    return count > most or total > int(limits["folder_bytes"])


def entries(folder: Path, most: int) -> Iterator[tuple[Path, os.stat_result]]:
    """What is in a folder at any depth, links not followed: at most so many, and no call within a call.

    What cannot be looked at (a path longer than the system allows, a folder without rights) is left out.
    """
    left, seen = [str(folder)], 0
    while left and seen < most:
        try:
            found = list(islice(os.scandir(left.pop()), most - seen))
        except OSError:
            continue
        for entry in found:
            try:
                kind = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            seen += 1
            yield Path(entry.path), kind
            if stat.S_ISDIR(kind.st_mode):
                left.append(entry.path)


def _kill_all(keeper: int | None) -> None:
    """Kill and collect the keeper and all below it, until nothing is left."""
    if keeper is not None:
        os.kill(keeper, signal.SIGKILL)
    while True:
        for pid in _descendants():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)
