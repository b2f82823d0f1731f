"""How far a step is: stored, so that it survives a closed terminal and any watcher can read it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from kascade.storage.files import write_json


@dataclass(slots=True)
class Progress:
    """Writes `{step, done, total, unit, eta_s, metrics}` at most every `every_s` seconds."""

    path: Path
    step: str
    every_s: float = 0.5
    _started: float = field(default_factory=time.monotonic)
    _written: float = 0.0

    def update(self, done: int, total: int, unit: str = "steps", **metrics: float) -> None:
        now = time.monotonic()
        if done < total and now - self._written < self.every_s:
            return
        self._written = now
        eta_s = (now - self._started) / done * (total - done) if done else None
        write_json(
            self.path,
            {
                "step": self.step,
                "done": done,
                "total": total,
                "unit": unit,
                "eta_s": eta_s,
                "metrics": metrics,
            },
        )
