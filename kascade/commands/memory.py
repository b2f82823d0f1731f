"""How `kascade plan` shows the memory of a recipe's stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kascade.recipe.fits import MemoryGroup, MemoryPlan

if TYPE_CHECKING:
    from rich.console import Console

LARGEST_PARTS = 4  # of a group; the others are in `--json`


def show_memory(out: Console, memory: MemoryPlan) -> None:
    """A table: each group of processes, GiB on each device, and the parts that take most. Groups that are
    alike have one row."""
    from rich.table import Table

    from kascade.recipe.plan_short import ROLES, fits_how
    from kascade.recipe.plan_words import some

    if memory.not_counted is not None or memory.parameters is None:
        out.print(f"Memory was not counted: {memory.not_counted}", markup=False)
        return
    table = Table("stage", "role", "devices", "low", "expected", "high", "fits", "mostly")
    table.caption = (
        "GiB on each device, when most is needed; prompts are not counted; tight: the high one does not fit"
    )
    for column in table.columns[:-1]:
        column.no_wrap = True
    for group, stages in _alike(memory):
        total = group.total
        amounts = (f"{amount:.1f}" for amount in (total.low, total.expected, total.high))
        who = (some(stages), ROLES[group.role], str(group.processes))
        table.add_row(*who, *amounts, fits_how(group, memory), _mostly(group))
    size = memory.parameters / 1e9
    out.print(
        f"Memory: {size:.1f} billion parameters on {memory.devices} x {memory.device} of "
        f"{memory.device_gib:.1f} GiB.",
        markup=False,
    )
    out.print(table)


def _alike(memory: MemoryPlan) -> list[tuple[MemoryGroup, list[str]]]:
    """Groups that need the same, with the stages that have them."""
    found: dict[str, tuple[MemoryGroup, list[str]]] = {}
    for group in memory.groups:
        same = group.model_dump_json(exclude={"stage"})
        found.setdefault(same, (group, []))[1].append(group.stage)
    return list(found.values())


def _mostly(group: MemoryGroup) -> str:
    largest = sorted(group.parts.items(), key=lambda part: -part[1].expected)[:LARGEST_PARTS]
    return ", ".join(f"{name} {amount.expected:.1f}" for name, amount in largest if amount.expected >= 0.05)
