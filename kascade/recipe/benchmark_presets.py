"""Published benchmarks by name: their protocol as the defaults of a recipe's benchmark."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kascade.recipe.checks import CrossCheckError, Problem, nearest

FILE = Path(__file__).parent / "benchmarks.yaml"


@cache
def benchmark_presets() -> dict[str, dict[str, Any]]:
    """Name of each preset: its fields, and under `hub` where its data is published (None: nowhere)."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["presets"]
    return found


def with_preset(benchmark: Mapping[str, Any]) -> dict[str, Any]:
    """A benchmark's fields over those of the preset it names. Raises CrossCheckError for an unknown one."""
    name = benchmark.get("preset")
    if name is None:
        return dict(benchmark)
    presets = benchmark_presets()
    if name not in presets:
        known = sorted(presets)
        problem = Problem(
            ("preset",), f"{name!r} is not a benchmark known here", ", ".join(known), nearest(name, known)
        )
        raise CrossCheckError([problem])
    preset = {key: value for key, value in presets[name].items() if key != "hub"}
    return _over(copy.deepcopy(preset), benchmark)


def _over(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in change.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), dict)
        base[key] = _over(base[key], value) if both else value
    return base
