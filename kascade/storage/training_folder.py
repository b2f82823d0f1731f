"""The files of one training."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """The files of one training: curves, states, and what was measured before its first step."""

    root: Path

    @property
    def curves(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def states(self) -> Path:
        return self.root / "state"

    @property
    def weights(self) -> Path:
        """Versions of the weights on their way to samplers of other processes."""
        return self.root / "weights"

    @property
    def pass_rates(self) -> Path:
        return self.root / "pass_rates.json"

    @property
    def teacher_gaps(self) -> Path:
        return self.root / "teacher_gaps.json"

    def drop_states(self) -> None:
        """Remove the training states and handed-over weights, which only a resumed training needs."""
        shutil.rmtree(self.states, ignore_errors=True)
        shutil.rmtree(self.weights, ignore_errors=True)
