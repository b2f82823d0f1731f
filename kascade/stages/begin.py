"""How a run begins on a cluster: its folder, its recipe from the run form, then preflight."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from kascade.errors import CheckpointError, Fault, StorageError, UserError
from kascade.recipe.identity import changed_stages
from kascade.recipe.schema import Recipe
from kascade.stages.form import FORM, RunForm, resolve_form
from kascade.storage.checkpoint import verify
from kascade.storage.files import write_text
from kascade.storage.layout import RunLayout

log = logging.getLogger(__name__)

RUN_ID = "{id}"


def run_folder(run: str, run_id: str) -> str:
    """The run's folder: the form's field `run` with the pipeline run's id put in."""
    return run.replace(RUN_ID, run_id)


def begin(run: str, packed: str, form: Sequence[str]) -> tuple[str, str, str]:
    """Complete the compiled recipe with the run form, write it into the run's folder, and check everything.

    packed: the compiled recipe (`form.pack`). form: the fields of `RunForm`, in order. Returns the base
    checkpoint's reference, the run's folder, and the recipe's revision. Raises UserError with all faults.
    """
    filled = RunForm(*form)
    resolved = resolve_form(packed, filled)
    recipe = resolved.recipe
    if filled.start_from:
        recipe = _started_from(recipe, filled.start_from.strip())
    write_recipe(RunLayout(Path(run)), recipe)
    from kascade.stages.steps import preflight

    return preflight(run), run, resolved.revision


def _started_from(recipe: Recipe, reference: str) -> Recipe:
    """`recipe` with a checkpoint as its model: as a folder here, fetched where it lies in a bucket."""
    try:
        folder, _ = verify(reference)
    except (CheckpointError, StorageError) as error:
        remedy = "give a checkpoint that this pipeline's pods can see, with the digest it was published with"
        raise UserError(Fault(f"{FORM} start_from", str(error), remedy=remedy)) from error
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"source": str(folder)})})


def write_recipe(layout: RunLayout, recipe: Recipe) -> None:
    """The completed recipe, for all later steps; what a continued run will do again is logged."""
    path = layout.resolved_recipe
    text = recipe.model_dump_json(indent=1) + "\n"
    if path.is_file():
        before = Recipe.model_validate_json(path.read_text(encoding="utf-8"))
        for stage, reasons in changed_stages(before, recipe).items():
            log.info("%s is trained again: %s", stage, "; ".join(reasons))
    write_text(path, text)
