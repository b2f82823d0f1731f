"""What a change of the recipe redoes."""

from __future__ import annotations

from kascade.recipe.identity import determinants, differences, model_identity
from kascade.recipe.order import parent_of, teachers_of
from kascade.recipe.schema import Recipe


def changed_stages(old: Recipe, new: Recipe) -> dict[str, tuple[str, ...]]:
    """Stages of `new` whose weights a run of `old` does not already hold, with the reasons, in order."""
    known = {stage.name for stage in old.stages}
    base = list(differences(model_identity(old.model.source), model_identity(new.model.source), "model"))
    changed: dict[str, tuple[str, ...]] = {}
    for stage in new.stages:
        name = stage.name
        if name not in known:
            changed[name] = ("not in the earlier run",)
            continue
        before, after = (determinants(recipe, name, "train") for recipe in (old, new))
        reasons = [reason.removeprefix("stage.") for reason in differences(before, after)]
        parent = parent_of(new, name)
        if parent != parent_of(old, name):
            reasons.append(f"starts from {parent or 'the base model'} now")
        elif parent is None:
            reasons.extend(base)
        sources = [source for source in (parent, *teachers_of(new, name)) if source in changed]
        reasons.extend(f"{source} is redone" for source in dict.fromkeys(sources))
        if reasons:
            changed[name] = tuple(reasons)
    return changed
