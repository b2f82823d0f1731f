"""Which results in a run's folder are those of its recipe: a folder may hold those of earlier recipes, too.

Preflight writes down what identifies the recipe's results while model and rows are at hand: the base
checkpoint, and each stage's fingerprint. Nothing is found by a name and the time it was written.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kascade.recipe.identity import fingerprint, short_hash
from kascade.recipe.schema import Recipe
from kascade.storage.files import write_record
from kascade.storage.run_folder import RunFolder

# Parts that came after recipes were first run: where they are not used, an old folder's identity stays valid.
LATER_PARTS = ("budget", "prices", "approval", "notify", "attest", "retrain")


class Identity(BaseModel):
    """recipe: hash of the completed recipe. base: reference. fingerprints: of each stage, at preflight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    base: str
    fingerprints: dict[str, str]


def write_identity(folder: RunFolder, recipe: Recipe, base: str) -> None:
    """Write down what identifies the recipe's results. base: reference of the base checkpoint."""
    found = Identity(recipe=_hash(recipe), base=base, fingerprints=_fingerprints(recipe))
    write_record(folder.identity, found.model_dump_json(indent=1))


def base_of(folder: RunFolder, recipe: Recipe) -> str | None:
    """Reference of the base checkpoint of this recipe; None where its preflight has not ended."""
    found = _identity(folder, recipe)
    return found.base if found else None


def fingerprints_of(folder: RunFolder, recipe: Recipe) -> dict[str, str]:
    """The fingerprint of each stage: as preflight found it, or, where it has not run, as of now."""
    found = _identity(folder, recipe)
    return found.fingerprints if found else _fingerprints(recipe)


def _identity(folder: RunFolder, recipe: Recipe) -> Identity | None:
    found = folder.load(folder.identity, _parse)
    return found if found is not None and found.recipe == _hash(recipe) else None


def _parse(path: Path) -> Identity:
    return Identity.model_validate_json(path.read_text(encoding="utf-8"))


def _hash(recipe: Recipe) -> str:
    plain = {name for name in LATER_PARTS if getattr(recipe, name) == Recipe.model_fields[name].default}
    return short_hash(recipe.model_dump(mode="json", exclude=plain))


def _fingerprints(recipe: Recipe) -> dict[str, str]:
    return {stage.name: fingerprint(recipe, stage.name) for stage in recipe.stages}
