"""How long texts are: quantiles and a histogram in powers of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

QUANTILES = {"median": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Lengths:
    """Of one kind of text. buckets: (from, below, how many), each twice as wide as the one before."""

    total: int
    mean: float
    quantiles: dict[str, float]
    longest: int
    buckets: tuple[tuple[int, int, int], ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_lengths(lengths: Sequence[int]) -> Lengths | None:
    """None when there is nothing to measure."""
    if not lengths:
        return None
    values = np.array(lengths)
    highest = max(1, int(values.max()))
    edges = [0, *(2**power for power in range(int(np.floor(np.log2(highest))) + 2))]
    counts, _ = np.histogram(values, bins=edges)
    buckets = [
        (low, high, int(count)) for low, high, count in zip(edges, edges[1:], counts, strict=False) if count
    ]
    # numpy's last bin is closed; the last edge is above the longest, so that no value is on it
    return Lengths(
        total=int(values.sum()),
        mean=float(values.mean()),
        quantiles={name: float(np.quantile(values, q)) for name, q in QUANTILES.items()},
        longest=int(values.max()),
        buckets=tuple(buckets),
    )
