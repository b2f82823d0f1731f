"""What the doctor found, as the command line shows it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from kascade.commands.output import console

if TYPE_CHECKING:
    from kascade.doctor.checks import Findings, Need
    from kascade.recipe.load import LoadedRecipe


def examine_recipe(loaded: LoadedRecipe, out: Path | None, needs: Collection[Need] | None = None) -> Findings:
    """All checks that `needs` allow (None: those that take no time), with places in the user's file."""
    from kascade.doctor.checks import LIGHT, examine
    from kascade.doctor.subject import Subject

    deep = needs is not None
    subject = Subject(loaded.recipe, loaded.place, out, generated=deep)
    return examine(subject, needs if needs is not None else LIGHT)


def examine_or_raise(loaded: LoadedRecipe, out: Path) -> None:
    """The checks before a run here. Warnings go to stderr; raises UserError with every error."""
    found = examine_recipe(loaded, out)
    found.raise_errors()
    show_warnings(found)


def show_warnings(found: Findings) -> None:
    """One line per warning, with what to do."""
    for warning in found.warnings:
        remedy = f" ({warning.remedy})" if warning.remedy else ""
        text = f"warning: {warning.where}: {warning.what}{remedy}"
        console().print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)
