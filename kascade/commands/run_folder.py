"""The folder of a run as the command line sees it: what its steps took."""

from __future__ import annotations

from pathlib import Path

from kascade.recipe.measured import measure
from kascade.recipe.plan import EarlierRun
from kascade.recipe.run_recipe import read_run_recipe
from kascade.storage.run_folder import RunFolder


def read_earlier_run(run: Path) -> EarlierRun:
    """A run's recipe, and what its steps took. Raises UserError when `run` is not one."""
    recipe = read_run_recipe(run)
    return EarlierRun(recipe, measure(RunFolder(run), recipe, str(run)))
