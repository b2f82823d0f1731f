"""Where the time goes: seconds of wall and CPU by kind of work, and peak memory."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil


def cpu_seconds() -> float:
    """CPU seconds (user + system) of this process and all its descendants, ended or running.

    Running ones count because the sandbox's worker, in which answers are tried, lives as long as we do.
    """
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ended = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return ended + sum(map(_cpu_seconds_of, psutil.Process().children(recursive=True)))


def _cpu_seconds_of(process: psutil.Process) -> float:
    """Of a running process and its ended children; 0 for one that has just ended."""
    try:
        return float(sum(process.cpu_times()[:4]))  # user, system, and both of ended children
    except psutil.NoSuchProcess:
        return 0.0


def peak_memory_bytes() -> int:
    """Peak resident memory of this process (Linux reports kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(slots=True)
class Clock:
    """Adds up wall seconds by section ("sampling", "training", "grading", "loading", ...)."""

    started: float = field(default_factory=time.perf_counter)
    sections: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.sections[name] += time.perf_counter() - start

    def summary(self) -> dict[str, float]:
        """Wall seconds by section, and the totals: wall_s, cpu_s, peak_memory_bytes."""
        return {
            **{f"{name}_s": round(seconds, 3) for name, seconds in sorted(self.sections.items())},
            "wall_s": round(time.perf_counter() - self.started, 3),
            "cpu_s": round(cpu_seconds(), 3),
            "peak_memory_bytes": peak_memory_bytes(),
        }
