"""Which stage follows which: where a stage starts, who may teach it, and what it waits for."""

from __future__ import annotations

from kascade.recipe.identity import earlier_stages, find_stage
from kascade.recipe.schema import Recipe


def parent_of(recipe: Recipe, stage_name: str) -> str | None:
    """Name of the stage that `stage_name` starts from; None: the base model."""
    stage = find_stage(recipe, stage_name)
    if stage.parent is not None:
        return stage.parent
    return main_line_before(recipe, stage_name)


def main_line_before(recipe: Recipe, stage_name: str) -> str | None:
    """Name of the main line's last stage before `stage_name`; None: the base model."""
    main_line = [other.name for other in earlier_stages(recipe, stage_name) if not other.side_branch]
    return main_line[-1] if main_line else None


def starts_elsewhere(recipe: Recipe, stage_name: str) -> bool:
    """Whether a stage is on the main line, and starts from a side branch, or from further back."""
    is_main = not find_stage(recipe, stage_name).side_branch
    return is_main and parent_of(recipe, stage_name) != main_line_before(recipe, stage_name)


def teachers_of(recipe: Recipe, stage_name: str) -> tuple[str, ...]:
    """Stages that may teach a MOPD stage: those named, and every earlier one where `best` decides."""
    stage = find_stage(recipe, stage_name)
    teachers = stage.teacher_names()
    if teachers is None:
        return ()
    named = tuple(dict.fromkeys(name for name in teachers.values() if name != "best"))
    open_choice = not teachers or "best" in teachers.values()
    return tuple(other.name for other in earlier_stages(recipe, stage_name)) if open_choice else named


def awaited_by(recipe: Recipe, stage_name: str) -> tuple[str, ...]:
    """Stages that end before this one begins, beside its parent: its teachers, and the main line's last stage
    where it starts elsewhere, because it is held against what that ended with."""
    before = main_line_before(recipe, stage_name)
    joined = [before] if before is not None and starts_elsewhere(recipe, stage_name) else []
    parent = parent_of(recipe, stage_name)
    return tuple(
        name for name in dict.fromkeys([*teachers_of(recipe, stage_name), *joined]) if name != parent
    )
