"""Where the time goes: seconds of wall and CPU by kind of work, and peak memory."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


def cpu_seconds() -> float:
    """CPU seconds (user + system) of this process and its waited-for children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


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
