"""How a run begins on a cluster: its folder, its recipe from the run form, then preflight."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from kascade.errors import CheckpointError, Fault, StorageError, UserError
from kascade.guard.approval import decide
from kascade.recipe.approval import decisions
from kascade.recipe.form_text import FORM
from kascade.recipe.run_form import RunForm, resolve_form
from kascade.recipe.run_recipe import keep_recipe
from kascade.recipe.schema import Recipe
from kascade.run.pulse import refuse_others
from kascade.steps.pages import plan_markdown, write
from kascade.storage.checkpoint import verify
from kascade.storage.run_folder import RunFolder

log = logging.getLogger(__name__)

RUN_ID = "{id}"


def run_folder(run: str, run_id: str) -> str:
    """The run's folder: the form's field `run` with the pipeline run's id put in."""
    return run.replace(RUN_ID, run_id)


def begin(
    run: str,
    packed: str,
    form: Sequence[str],
    job_faults: Callable[[Recipe], list[Fault]],
    *,
    plan: str | None = None,
    run_id: str = "",
) -> tuple[str, str]:
    """Complete the compiled recipe with the run form, write it into the run's folder, and check everything.

    packed: the compiled recipe (`run_form.pack`). form: the fields of `RunForm`, in order. job_faults: see
    `check_and_import`. plan: file to write the plan to, as Markdown. run_id: of the pipeline's run, by which
    answers of its form are known. Returns the base checkpoint's reference and the run's folder. Raises
    UserError with all faults.
    """
    refuse_others(RunFolder(Path(run)), "preflight")
    recipe = take_form(run, packed, form, run_id)
    for stage, reasons in (keep_recipe(RunFolder(Path(run)), recipe) or {}).items():
        log.info("%s is trained again: %s", stage, "; ".join(reasons))
    from kascade.steps.steps import preflight

    base = preflight(run, job_faults)
    if plan is not None:
        write(plan, plan_markdown(run))
    return base, run


def take_form(run: str, packed: str, form: Sequence[str], run_id: str) -> Recipe:
    """The compiled recipe, completed with the run form, whose answers are kept. Raises UserError."""
    filled = RunForm(*form)
    if "$" in run or "{{" in run:
        what = f"{run!r} holds $ or {{{{, which Kubernetes and Argo may fill in"
        raise UserError(Fault(f"{FORM} run", what, remedy="name another folder"))
    recipe = resolve_form(packed, filled)
    if filled.start_from:
        recipe = _started_from(recipe, filled.start_from.strip())
    _take_word(RunFolder(Path(run)), filled.approve, run_id)
    return recipe


def _take_word(folder: RunFolder, text: str, run_id: str) -> None:
    """Keep what the run form approves or rejects. Raises UserError for what nobody asked about."""
    faults: list[Fault] = []
    said = decisions(text, f"{FORM} approve", faults)
    if faults:
        raise UserError(faults)
    for name, approved in said.items():
        try:
            decide(folder, name, approved=approved, by=f"run form of {run_id}")
        except UserError as error:
            faults += error.faults
    if faults:
        raise UserError(faults)


def _started_from(recipe: Recipe, reference: str) -> Recipe:
    """`recipe` with a checkpoint as its model: as a folder here, fetched where it is in a bucket."""
    try:
        folder, _ = verify(reference)
    except (CheckpointError, StorageError) as error:
        remedy = "give a checkpoint that this pipeline's pods can see, with the digest it was published with"
        raise UserError(Fault(f"{FORM} start_from", str(error), remedy=remedy)) from error
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"source": str(folder)})})
