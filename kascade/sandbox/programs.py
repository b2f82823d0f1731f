"""Runs untrusted Python programs: no network, no files but the standard library, no other process.

One worker, a clean interpreter started once, forks for every job; the child confines itself with
Landlock, seccomp and rlimits and then runs the program (`sandbox_worker`, `sandbox_confinement`). Jobs
and outputs travel in memory files that only this process and the child hold, so the worker never sees
a program and a program never sees another's. Nothing that a program prints is believed about anything
but its own output: what was expected stays here, and exits and timeouts are reported by the worker.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kascade.errors import Fault, UserError
from kascade.sandbox.cleaning import discard
from kascade.sandbox.protocol import (
    EXITED,
    KILL,
    NOT_STARTED,
    RUN,
    STARTED,
    UNCONFINED,
    Execution,
    Isolation,
    Limits,
    Result,
    may_run_unconfined,
    memory_file,
    pack,
    read_memory,
    unpack,
)

log = logging.getLogger(__name__)

BOOTSTRAP = "import sys; sys.path.append({root!r}); from kascade.sandbox.worker import main; main({fd})"
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}  # a fixed seed: the same program, the same output


class Sandbox:
    """Runs jobs, `parallel` at a time. Safe to use from several threads; close it or let it end with us.

    Raises UserError on first use where the kernel cannot confine programs, unless `allow_unconfined`.
    """

    def __init__(self, *, parallel: int = 2, allow_unconfined: bool = False) -> None:
        self.parallel = parallel
        self.allow_unconfined = allow_unconfined
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    def describe(self) -> Isolation:
        """Which isolation is active."""
        with self._lock:
            return self._ready().isolation

    def run_many(self, jobs: Sequence[Execution]) -> list[Result]:
        """Results of all jobs, in order."""
        with self._lock:
            batch = _Batch(self._ready(), jobs)
            try:
                batch.run(self.parallel)
            except (OSError, EOFError) as error:
                log.warning("the sandbox worker died and will be started anew: %s", error)
                self._stop()
                batch.abandon(f"the sandbox worker died: {error}")
            except BaseException:  # Ctrl-C: what still runs must not be taken for the next batch's
                self._stop()
                batch.abandon("interrupted")
                raise
            return batch.results()

    def close(self) -> None:
        with self._lock:
            self._stop()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ready(self) -> _Worker:
        if self._worker is not None and self._worker.owner == os.getpid() and self._worker.alive():
            return self._worker
        worker = _Worker()
        problems = worker.isolation.problems()
        if problems and worker.isolation.seccomp == 0 and not self.allow_unconfined:
            worker.stop()
            raise UserError(
                Fault(
                    "sandbox",
                    "; ".join(problems),
                    remedy=f"use a kernel with seccomp, or let programs run unconfined: {UNCONFINED}=1",
                )
            )
        for problem in problems:
            log.warning("SANDBOX WEAKENED: %s", problem)
        self._worker = worker
        return worker

    def _stop(self) -> None:
        if self._worker is not None and self._worker.owner == os.getpid():
            self._worker.stop()
        self._worker = None


class _Worker:
    """Our end of the worker process."""

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise UserError(Fault("sandbox", f"cannot run programs on {sys.platform}", allowed="Linux"))
        self.owner = os.getpid()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(__file__).parents[2])
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-s",
                    "-P",
                    "-S",
                    "-B",
                    "-c",
                    BOOTSTRAP.format(root=root, fd=theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                cwd="/",
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        greeting = self.control.recv(4096)
        if not greeting:
            _, complaint = self._process.communicate()
            raise RuntimeError(f"the sandbox worker did not start: {complaint.decode(errors='replace')}")
        self.isolation = Isolation(**json.loads(greeting))

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """The worker ends, and kills what still runs, when its control socket closes."""
        self.control.close()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


@dataclass(slots=True)
class _Running:
    """A job in flight: where its outputs arrive, and by when it must be done."""

    stdout: int
    values: int
    deadline: float
    folder: str | None
    started: bool = False
    killed: bool = False

    def collect(self, job: Execution, status: int, cpu_seconds: float) -> Result:
        if not self.started:
            return Result(error=f"the program could not be started (status {status}, killed: {self.killed})")
        out_of_cpu = status == -signal.SIGXCPU or (status < 0 and cpu_seconds > job.limits.cpu_seconds)
        lines = read_memory(self.values, job.limits.output_bytes).split("\n")[:-1]
        answers = [line for line in lines if line.startswith(("V", "E"))]
        raised = next((line[1:] for line in answers if line.startswith("E")), None)
        values = tuple(line[1:] if line.startswith("V") else None for line in answers[: len(job.calls)])
        return Result(
            stdout=read_memory(self.stdout, job.limits.output_bytes),
            values=values,
            exit_status=status,
            timed_out=self.killed or out_of_cpu,
            cpu_seconds=cpu_seconds,
            exception=raised,
        )

    def clean(self) -> None:
        os.close(self.stdout)
        os.close(self.values)
        if self.folder is not None:
            discard(self.folder)


@dataclass(slots=True)
class _Batch:
    """One call of `run_many`: starts jobs, watches them, collects what they leave."""

    worker: _Worker
    jobs: Sequence[Execution]
    done: dict[int, Result] = field(default_factory=dict)
    running: dict[int, _Running] = field(default_factory=dict)

    def run(self, parallel: int) -> None:
        waiting = deque(range(len(self.jobs)))
        while waiting or self.running:
            while waiting and len(self.running) < parallel:
                self._start(waiting.popleft())
            self._wait()
            self._kill_overdue()

    def results(self) -> list[Result]:
        return [self.done[index] for index in range(len(self.jobs))]

    def abandon(self, error: str) -> None:
        """Give up what has no result yet."""
        for running in self.running.values():
            running.clean()
        self.running.clear()
        for index in range(len(self.jobs)):
            self.done.setdefault(index, Result(error=error))

    def _start(self, index: int) -> None:
        job = self.jobs[index]
        folder = tempfile.mkdtemp(prefix="sandbox-") if job.limits.private_tmp else None
        order = {
            "source": job.source,
            "function": job.function,
            "calls": job.calls,
            "limits": asdict(job.limits),
            "folder": folder,
        }
        fds = [memory_file(text) for text in (json.dumps(order), job.stdin, "", "")]
        deadline = time.monotonic() + job.limits.wall_seconds
        self.running[index] = _Running(fds[2], fds[3], deadline, folder)
        try:
            socket.send_fds(self.worker.control, [pack(RUN, index)], fds)
        finally:
            os.close(fds[0])
            os.close(fds[1])

    def _wait(self) -> None:
        """Wait for one message, or until the next job is overdue."""
        pending = [running.deadline for running in self.running.values() if not running.killed]
        patience = max(0.0, min(pending) - time.monotonic()) if pending else None
        if not select.select([self.worker.control], [], [], patience)[0]:
            return
        packet = self.worker.control.recv(64)
        if not packet:
            raise EOFError("its control socket closed")
        kind, index, status, cpu_seconds = unpack(packet)
        running = self.running[index]
        if kind == STARTED:
            running.started = True
        elif kind in (EXITED, NOT_STARTED):
            self.done[index] = running.collect(self.jobs[index], status, cpu_seconds)
            self.running.pop(index).clean()

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for index, running in self.running.items():
            if now >= running.deadline and not running.killed:
                running.killed = True
                self.worker.control.send(pack(KILL, index))


_shared: list[Sandbox] = []


def shared_sandbox() -> Sandbox:
    """The sandbox of this process, made on first use."""
    if not _shared:
        configure_sandbox(allow_unconfined=may_run_unconfined())
    return _shared[0]


def configure_sandbox(*, parallel: int = 2, allow_unconfined: bool = False) -> Sandbox:
    """Replace the sandbox of this process."""
    while _shared:
        _shared.pop().close()
    _shared.append(Sandbox(parallel=parallel, allow_unconfined=allow_unconfined))
    return _shared[0]


@atexit.register
def _close_shared() -> None:
    while _shared:
        _shared.pop().close()


__all__ = ["Isolation", "Execution", "Limits", "Result", "Sandbox", "configure_sandbox", "shared_sandbox"]
