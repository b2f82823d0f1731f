"""Published benchmarks by name: their protocol as the defaults of a recipe's benchmark."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kascade.errors import Fault
from kascade.recipe.checks import nearest
from kascade.recipe.document import Node, from_value
from kascade.recipe.layers import merged, with_field

FILE = Path(__file__).parent / "benchmarks.yaml"


@cache
def benchmark_presets() -> dict[str, dict[str, Any]]:
    """Name of each preset: its fields, and under `hub` where its data is published (None: nowhere)."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["presets"]
    return found


def with_presets(root: Node, faults: list[Fault]) -> Node:
    """A recipe whose benchmarks have the fields of the presets they name, wherever they say nothing else.

    Done a second time, it changes nothing. An unknown preset is reported in `faults`.
    """
    benchmarks = root.mapping.get("benchmarks")
    if benchmarks is None or not benchmarks.items:
        return root
    filled = [_filled(benchmark, faults) for benchmark in benchmarks.items]
    return with_field(root, "benchmarks", Node(filled, benchmarks.place))


def _filled(benchmark: Node, faults: list[Fault]) -> Node:
    named = benchmark.mapping.get("preset")
    if named is None or named.value is None:
        return benchmark
    presets = benchmark_presets()
    if not isinstance(named.value, str) or named.value not in presets:
        known = sorted(presets)
        what = f"{named.plain()!r} is not a benchmark known here"
        fault = Fault(named.place, what, ", ".join(known), nearest(named.value, known))
        if fault not in faults:
            faults.append(fault)
        return benchmark
    preset = {key: value for key, value in presets[named.value].items() if key != "hub"}
    return merged(from_value(preset, f"benchmark preset {named.value}"), benchmark)
