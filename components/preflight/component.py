"""Reads the run form, checks model, data and graders, and imports the base model into the run."""

from typing import NamedTuple

from kfp import dsl

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
    approve: str,
    plan: dsl.Output[dsl.Markdown],
) -> NamedTuple("Begun", [("base", str), ("run", str)]):  # type: ignore[valid-type]
    """Return the base checkpoint's reference and the run's folder; the page shows the plan."""
    from kascade.cluster.ready import job_faults
    from kascade.run.process import step_process
    from kascade.steps.begin import begin, run_folder

    with step_process(run_folder(run, id), "preflight"):
        form = (recipe, model, data, scale, budget, overrides, start_from, stages, approve)
        return begin(run_folder(run, id), compiled, form, job_faults, plan=plan.path, run_id=id)
