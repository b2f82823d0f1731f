"""Whether every stage fits the devices that the recipe names."""

from __future__ import annotations

from kascade.doctor.subject import NotChecked, Subject
from kascade.errors import Fault
from kascade.recipe.fits import memory_problems, model_shape


def fits(subject: Subject) -> list[Fault]:
    """Stages that need more memory than a device has, with the changes that would make them fit."""
    recipe = subject.recipe
    if recipe.hardware is None:
        raise NotChecked("the recipe names no `hardware`")
    if model_shape(recipe) is None:
        raise NotChecked(f"the shape of {recipe.model.source} is not known here")
    return [Fault(subject.place(*p.path), p.what, p.allowed, p.remedy) for p in memory_problems(recipe)]
