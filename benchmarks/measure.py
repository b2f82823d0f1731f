"""One measurement, and how two contenders are timed fairly on a busy machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from kascade.clock import cpu_seconds

SHORTEST_ROUND = 0.3  # CPU seconds; reading the clock costs about a millisecond


@dataclass(frozen=True, slots=True)
class Measurement:
    """A row of the table. peer, peer_name: None where there is nothing to compare with.

    less_is_better: a size, not a rate.
    """

    name: str
    ours: float
    unit: str
    peer: float | None = None
    peer_name: str | None = None
    less_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's, of sizes the other way round: above 1 is in our favour."""
        if self.peer is None:
            return None
        return self.peer / self.ours if self.less_is_better else self.ours / self.peer

    def as_json(self) -> dict[str, str | float | None]:
        return {
            "name": self.name,
            "ours": self.ours,
            "peer": self.peer,
            "ratio": self.ratio,
            "unit": self.unit,
            "peer_name": self.peer_name,
        }


def cpu_time(work: Callable[[], object]) -> float:
    """CPU seconds of one call, child processes included."""
    start = cpu_seconds()
    work()
    return cpu_seconds() - start


def median_cpu_time(work: Callable[[], object], rounds: int) -> float:
    """Median CPU seconds of a call, over rounds of as many calls as make a round long enough to measure."""
    work()
    calls = max(1, math.ceil(SHORTEST_ROUND / cpu_time(work)))
    return median(cpu_time(lambda: [work() for _ in range(calls)]) / calls for _ in range(rounds))


def compare(ours: Callable[[], object], peer: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median CPU seconds of both, called in turns after one call each to warm up."""
    ours()
    peer()
    times = [(cpu_time(ours), cpu_time(peer)) for _ in range(rounds)]
    return median(own for own, _ in times), median(other for _, other in times)
