"""What the sandbox and its worker say to each other."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Isolation:
    """What confines programs. landlock: version of its interface, 0 without it; seccomp: 0 or 1."""

    machine: str
    landlock: int
    seccomp: int

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
        parts = [f"Landlock ABI {self.landlock}" if self.landlock else "", "seccomp" if self.seccomp else ""]
        return " + ".join([*filter(None, parts), "rlimits"])
