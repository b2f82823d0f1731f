"""Reads the run form, checks model, data and graders, and imports the base model into the run."""

from typing import NamedTuple

from components.image import step_component


@step_component
def preflight(
    *,
    run: str,
    id: str,
    compiled: str,
    recipe: str,
    model: str,
    data: str,
    scale: str,
    budget: str,
    overrides: str,
    start_from: str,
    stages: str,
) -> NamedTuple("Begun", [("base", str), ("run", str), ("revision", str)]):  # type: ignore[valid-type]
    """Return the base checkpoint's reference, the run's folder, and what tells changed recipes apart."""
    from kascade.stages.begin import begin, run_folder
    from kascade.stages.task import pipeline_task

    with pipeline_task(run_folder(run, id), "preflight"):
        form = (recipe, model, data, scale, budget, overrides, start_from, stages)
        return begin(run_folder(run, id), compiled, form)
