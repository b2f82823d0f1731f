"""What light steps say to a person on the page of a run."""

from __future__ import annotations

from kascade.guard.lineage import open_reference
from kascade.recipe.methods import stage_title
from kascade.run.budget import in_words, spent
from kascade.run.context import Run
from kascade.run.gate import END_CHECK


def beginning(run: Run, stage: str, parent: str) -> str:
    """From where a stage (or the end check) starts and what the run has spent, or that it is left out."""
    start = open_reference(parent).manifest.id
    numbered = {part.name: (number, part) for number, part in enumerate(run.recipe.stages, 1)}
    if stage in numbered:
        number, part = numbered[stage]
        return f"Stage {number}, {stage_title(part)}, would start from {start}. {spending(run)}"
    if stage == END_CHECK:
        return f"The end check is about {start}. {spending(run)}"
    return f"{stage} is left out, as the run form says: the cascade continues from {start}."


def spending(run: Run) -> str:
    """What finished steps have used, and each limit of the budget."""
    used, limits = spent(run.layout, run.recipe), run.recipe.limits.limits()
    shown = ", ".join(in_words(name, amount, run.recipe) for name, amount in used.items())
    allowed = ", ".join(in_words(name, limit, run.recipe) for name, limit in limits.items())
    return f"Finished steps used {shown}; {f'the budget is {allowed}' if allowed else 'there is no budget'}."
