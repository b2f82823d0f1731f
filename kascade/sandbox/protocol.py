"""What the sandbox takes and gives, and what it and its worker say to each other."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

RUN, KILL = b"R", b"K"  # to the worker
STARTED, EXITED, NOT_STARTED = b"S", b"X", b"N"  # from it
_PACKET = struct.Struct("<cQid")


def pack(kind: bytes, job: int, status: int = 0, cpu_seconds: float = 0.0) -> bytes:
    return _PACKET.pack(kind, job, status, cpu_seconds)


def unpack(packet: bytes) -> tuple[bytes, int, int, float]:
    """Kind, number of the job, exit status (negative for a signal), CPU seconds."""
    kind, job, status, cpu_seconds = _PACKET.unpack(packet)
    return kind, job, status, cpu_seconds


def memory_file(text: str) -> int:
    """Descriptor of a new file in memory that holds the text, at its start."""
    fd = os.memfd_create("job")
    rest = memoryview(text.encode("utf-8", "surrogatepass"))
    while rest:
        rest = rest[os.write(fd, rest) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read_memory(fd: int, limit: int) -> str:
    """The first `limit` bytes of a file in memory as text."""
    return os.pread(fd, limit, 0).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one job may use. The times are those of NeMo-Gym's code executor (10 s a test).

    cpu_seconds: whole seconds, enforced by the kernel. wall_seconds: against programs that sleep; ample,
    because on a busy machine a sound program also waits. output_bytes: of stdout, of results and of each
    file. private_tmp: a writable working folder, wiped afterwards; without it nothing can be written.
    """

    cpu_seconds: int = 10
    wall_seconds: float = 30.0
    memory_bytes: int = 512 * 1024**2
    output_bytes: int = 1024**2
    open_files: int = 32
    private_tmp: bool = False


@dataclass(frozen=True, slots=True)
class Execution:
    """A program to run: on `stdin` as a script, or for what `function` returns for each of `calls`.

    calls: per call its JSON arguments, one a line. `function` may also be a method of a class `Solution`.
    """

    source: str
    stdin: str = ""
    function: str | None = None
    calls: tuple[str, ...] = ()
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a job.

    values: per call the returned value as JSON text, None where it raised; shorter when the program died.
    exit_status: negative for a signal. exception: what the program raised, for people to read.
    error: the sandbox failed, which says nothing about the program; all else is then meaningless.
    """

    stdout: str = ""
    values: tuple[str | None, ...] = ()
    exit_status: int = 0
    timed_out: bool = False
    cpu_seconds: float = 0.0
    exception: str | None = None
    error: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the program ran to its end without an exception, a signal or a timeout."""
        return self.error is None and self.exit_status == 0 and not self.timed_out


UNCONFINED = "KASCADE_SANDBOX_UNCONFINED"  # set to 1, programs run where nothing confines them


def may_run_unconfined() -> bool:
    """Whether this machine's owner said that programs may run without confinement."""
    return os.environ.get(UNCONFINED) == "1"


@dataclass(frozen=True, slots=True)
class Isolation:
    """What confines programs. landlock: its interface's version, 0 without; seccomp, namespaces: 0 or 1."""

    machine: str
    landlock: int
    seccomp: int
    namespaces: int = 0

    def problems(self) -> list[str]:
        """What is missing, and what that means."""
        problems = []
        if not self.seccomp:
            problems.append(f"no seccomp ({self.machine}): programs can use the network and other processes")
        if not self.landlock and self.seccomp:
            problems.append("no Landlock: programs can open no file at all, so few modules can be imported")
        if not self.landlock and not self.seccomp:
            problems.append("no Landlock: programs can read and write files")
        return problems

    def __str__(self) -> str:
        spaces = "user, mount, process and network namespaces" if self.namespaces else ""
        parts = [
            spaces,
            f"Landlock ABI {self.landlock}" if self.landlock else "",
            "seccomp" if self.seccomp else "",
        ]
        return " + ".join([*filter(None, parts), "rlimits"])
