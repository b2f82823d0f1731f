"""The folder of a run as the command line sees it: its recipe and what its steps cost."""

from __future__ import annotations

from pathlib import Path

from kascade.errors import Fault, UserError
from kascade.recipe.identity import changed_stages
from kascade.recipe.plan import EarlierRun
from kascade.recipe.schema import Recipe
from kascade.storage.files import read_json, write_text
from kascade.storage.layout import RunLayout
from pipelines.process import folder_lock


def open_run_folder(folder: Path, recipe: Recipe, text: str) -> dict[str, tuple[str, ...]] | None:
    """Write the recipe as given (`text`) and completed into the run's folder.

    Returns None for a new run; for one that was there before, the stages that are trained again with
    the reasons. Results stay: they are found by keys. Raises UserError when the folder cannot be written,
    is in use, or holds a recipe of another version.
    """
    layout = RunLayout(folder)
    changed = None
    try:
        with folder_lock(layout.runner / "lock"):  # a run under way keeps its recipe
            if layout.resolved_recipe.is_file():
                changed = changed_stages(read_run_recipe(folder), recipe)
            write_text(layout.recipe, text)
            write_text(layout.resolved_recipe, recipe.model_dump_json(indent=1) + "\n")
    except OSError as error:
        remedy = "name another folder with --out"
        raise UserError(Fault(str(folder), f"cannot be written: {error.strerror}", remedy=remedy)) from error
    return changed


def read_run_recipe(run: Path) -> Recipe:
    """The completed recipe that a run folder was last started with. Raises UserError."""
    path = RunLayout(run).resolved_recipe
    if not path.is_file():
        remedy = "give the folder that `kascade run` wrote"
        raise UserError(Fault(str(run), f"is not the folder of a run: no {path.name}", remedy=remedy))
    try:
        return Recipe.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
    except ValueError as error:
        remedy = "start a new run in another folder"
        raise UserError(
            Fault(str(path), f"is not a recipe of this version: {error}", remedy=remedy)
        ) from error


def read_earlier_run(run: Path) -> EarlierRun:
    """A run's recipe with the CPU seconds of its steps. Raises UserError when `run` is not one."""
    recipe = read_run_recipe(run)
    costs = sorted(RunLayout(run).cost("any").parent.glob("*.json"))
    return EarlierRun(str(run), recipe, {path.stem: float(read_json(path)["cpu_s"]) for path in costs})
