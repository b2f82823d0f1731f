"""Which benchmarks there are: name → function, imported when it runs.

A benchmark is a function of `quick` (fewer and smaller rounds) that returns its measurements. Another one,
against another peer, is another line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from benchmarks.measure import Measurement

Benchmark = Callable[[bool], Sequence[Measurement]]

BENCHMARKS: Mapping[str, str] = {
    "rollout": "benchmarks.rollout:run",
    "training": "benchmarks.training:run",
    "sandbox": "benchmarks.sandbox:run",
    "graders": "benchmarks.graders:run",
    "graders_further": "benchmarks.graders_further:run",
    "guard": "benchmarks.guard:run",
}


def load(place: str) -> Benchmark:
    """The function at "module:name"."""
    module, _, name = place.partition(":")
    benchmark: Benchmark = getattr(import_module(module), name)
    return benchmark
