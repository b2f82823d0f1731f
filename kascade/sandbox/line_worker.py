"""A module of ours as a process of its own that answers JSON lines, within CPU time, wall time and memory.

For library code that an answer may send astray (a tower of powers, a simulated interface): what hangs or
fills the memory is ended there, and not here.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any

PACKAGES = str(Path(__file__).resolve().parents[2])  # where the worker finds this package, wherever we run
LOADING_SECONDS = 120.0  # until a new worker has its libraries
READY = "{}"


class WorkerError(Exception):
    """No answer came, and the request need not be at fault: the process died, or the machine is too slow."""


class WorkerDied(WorkerError):
    """The process ended in the middle of a request, which may have seen to that."""


class WorkerTooSlow(Exception):
    """The request takes more CPU time than it may, and would again."""


class LineWorker:
    """Starts with the first request; anew with the next one after it was ended.

    Safe to share between threads (they take turns; `lock` joins several requests) and across forks, each of
    which gets a process of its own.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self.lock = RLock()
        self.num_starts = 0
        os.register_at_fork(after_in_child=self._forget)
        atexit.register(self.close)

    def ask(self, request: Mapping[str, Any], *, cpu_seconds: float, wall_seconds: float) -> Any:
        """The module's answer. Raises WorkerTooSlow and WorkerError, after which it starts anew.

        The CPU time that the request may take does not run while other work has the processors; the wall
        clock is there for what waits and never computes.
        """
        with self.lock:
            self.start()
            line = json.dumps({"seconds": cpu_seconds, "request": request}).encode() + b"\n"
            try:
                assert self._process is not None
                assert self._process.stdin is not None
                self._process.stdin.write(line)
                self._process.stdin.flush()
                return json.loads(self._line(wall_seconds))
            except (OSError, ValueError) as error:
                if self._end() == -signal.SIGPROF:
                    raise WorkerTooSlow(f"longer than {cpu_seconds:g} s of CPU time") from None
                raise WorkerDied(f"its process died: {error}") from error

    def start(self) -> None:
        """Make sure that a process is there; a new one counts in `num_starts`. Raises WorkerError."""
        with self.lock:
            if self._process is not None and self._process.poll() is None:
                return
            self._end()
            path = os.pathsep.join(dict.fromkeys([PACKAGES, *filter(None, sys.path)]))
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # ours may be a pipe whose reader waits until all have closed it
                env={**os.environ, "PYTHONPATH": path},
            )
            self.num_starts += 1
            if self._line(LOADING_SECONDS).strip() != READY.encode():
                self._end()
                raise WorkerError(f"{self._module} did not start")

    def close(self) -> None:
        with self.lock:
            self._end()

    def _forget(self) -> None:
        """In a forked child: the process is the parent's, and the lock may be held by a thread there."""
        self.lock, self._process = RLock(), None

    def _line(self, seconds: float) -> bytes:
        """The process's next line, empty when it ended; it is killed when none comes in time."""
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(seconds):
                self._end()
                raise WorkerError(f"no answer within {seconds:g} s: this machine is too busy")
        return self._process.stdout.readline()

    def _end(self) -> int | None:
        """End the process, if there is one; how it ended."""
        process, self._process = self._process, None
        if process is None:
            return None
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # what was not written any more
                if pipe is not None:
                    pipe.close()
        try:
            return process.wait(timeout=0.2)  # one that its limit has ended says so
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def serve(prepare: Callable[[], Callable[[Any], Any]], *, memory_bytes: int) -> None:
    """The process's own side: answer until the parent closes the pipe. prepare: loads, and gives how.

    memory_bytes: of address space. The kernel ends the process when a request has had its CPU time
    (ITIMER_PROF), in the middle of any library's code.
    """
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    answer = prepare()
    print(READY, file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, asked["seconds"])
        found = json.dumps(answer(asked["request"]))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(found, file=answers, flush=True)
