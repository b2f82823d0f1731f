"""The training curves: one JSON line a step, cut back to the resumed step after an interruption."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from kascade.storage.files import LINE_BITS, is_whole_line, sealed, write_text

Metrics = Mapping[str, float | str]


def append_metrics(path: Path, step: int, metrics: Metrics) -> None:
    """Add the line of `step`; quantities that are not finite are left out (JSON has no NaN)."""
    finite = {k: v for k, v in metrics.items() if isinstance(v, str) or math.isfinite(v)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(sealed(json.dumps({"step": step, **finite}, allow_nan=False), LINE_BITS))


def read_metrics(path: Path) -> list[dict[str, float | str]]:
    """All whole lines; one that a kill left unfinished, or that has changed, ends the curve."""
    found: list[dict[str, float | str]] = []
    if not path.exists():
        return found
    for line in path.read_bytes().splitlines(keepends=True):
        if not is_whole_line(line):
            break
        found.append(json.loads(line))
    return found


def truncate_metrics(path: Path, step: int) -> None:
    """Keep the lines of steps before `step`: those after it will be made again."""
    kept = [line for line in read_metrics(path) if float(line["step"]) < step]
    write_text(path, "".join(sealed(json.dumps(line, allow_nan=False), LINE_BITS) for line in kept))
