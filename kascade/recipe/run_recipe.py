"""The recipe that a run keeps: the one writer and the one reader of `recipe.resolved.json`."""

from __future__ import annotations

from pathlib import Path

from kascade.errors import Fault, UserError
from kascade.recipe.checks import nearest
from kascade.recipe.redone import changed_stages
from kascade.recipe.schema import Recipe
from kascade.storage.files import write_record
from kascade.storage.run_folder import RunFolder

Changes = dict[str, tuple[str, ...]]


def keep_recipe(folder: RunFolder, recipe: Recipe) -> Changes | None:
    """Write the completed recipe into the run's folder, for all its steps.

    Returns None for a new run. For a run that was there before it returns the stages that are trained again,
    with the reasons. Results stay: they are found by keys. Raises UserError when the folder holds a recipe of
    another version.
    """
    before = read_run_recipe(folder.root) if folder.has_begun else None
    if before != recipe:
        write_record(folder.resolved_recipe, recipe.model_dump_json(indent=1))
    return None if before is None else changed_stages(before, recipe)


def nearest_run(name: str | Path) -> str | None:
    """ "did you mean ...?" with the folder of a run that is called most like a name that is not one."""
    places = [Path(name).parent, Path("runs")]
    folders = [path for place in places if place.is_dir() for path in place.iterdir() if path.is_dir()]
    found = [str(path) for path in folders if path != Path(name)]
    return nearest(str(name), found) or nearest(f"runs/{name}", found)


def read_run_recipe(run: Path) -> Recipe:
    """The completed recipe that a run was last started with. Raises UserError."""
    folder = RunFolder(run)
    found = find_run_recipe(folder)
    if found is None:
        what = f"is not the folder of a run: no {folder.resolved_recipe.name}"
        remedy = nearest_run(run) or "give the folder that `kascade run RECIPE --out FOLDER` wrote"
        if run.is_dir() and folder.has_only_begun:
            what = f"is the folder of a run that has not written {folder.resolved_recipe.name} yet"
            remedy = f"wait for that run, or start it again: kascade run RECIPE --out {run}"
        raise UserError(Fault(str(run), what, remedy=remedy))
    return found


def find_run_recipe(folder: RunFolder) -> Recipe | None:
    """The completed recipe of a run; None where there is none, or, read tolerantly, none of this version."""
    path = folder.resolved_recipe
    if not path.is_file():
        folder.note(path, "is missing")
        return None
    remedy = "start a new run in another folder, if the recipe is not of this version"
    return folder.load(path, _parse, remedy)


def _parse(path: Path) -> Recipe:
    return Recipe.model_validate_json(path.read_text(encoding="utf-8"))
