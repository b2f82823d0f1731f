"""What the steps of a run took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kascade.storage.run_folder import ACCELERATOR, PEAK, RunFolder

WORK = ("sampling", "training", "grading", "teachers")  # what the time is meant to go into


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one step took: seconds of wall and CPU, wall seconds by kind of work, peak memory in bytes.

    accelerator_s: wall seconds times the accelerators that it held.
    """

    step: str
    wall_s: float
    cpu_s: float
    sections: Mapping[str, float]
    peak_memory_bytes: float
    accelerator_s: float = 0.0

    @property
    def other_s(self) -> float:
        """Wall seconds outside sampling, training (teachers' scores included) and grading."""
        return max(0.0, self.wall_s - sum(self.sections.get(kind, 0.0) for kind in WORK))


def step_costs(folder: RunFolder) -> tuple[StepCost, ...]:
    """What every step took, in the order in which they ended."""
    found = []
    for step, cost in folder.costs().items():
        numbers = {key: float(value) for key, value in cost.items() if isinstance(value, int | float)}
        wall_s, cpu_s = numbers.pop("wall_s", 0.0), numbers.pop("cpu_s", 0.0)
        memory, held = numbers.pop(PEAK, 0.0), numbers.pop(ACCELERATOR, 0.0)
        sections = {key.removesuffix("_s"): value for key, value in numbers.items() if key.endswith("_s")}
        found.append(
            (folder.newest([folder.cost(step)]), StepCost(step, wall_s, cpu_s, sections, memory, held))
        )
    return tuple(cost for _, cost in sorted(found, key=lambda pair: (pair[0], pair[1].step)))
