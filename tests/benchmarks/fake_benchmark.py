"""A benchmark that knows its results."""

from __future__ import annotations

from benchmarks.measure import Measurement


def run(quick: bool) -> list[Measurement]:
    return [
        Measurement("fake, with a peer", 30.0 if quick else 3000.0, "tokens / CPU s", 1200.0, "slow peer"),
        Measurement("fake, alone", 7.5, "answers / CPU s"),
    ]


def other(quick: bool) -> list[Measurement]:
    return [Measurement("other", 1.0, "things / CPU s")]
