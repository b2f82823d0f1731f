"""Decides whether a run that is started again and again trains: did model, rows or recipe change?"""

from components.image import step_component


@step_component
def consider(
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
) -> bool:
    """Return whether the run trains."""
    from kascade.run.process import step_process
    from kascade.steps.begin import run_folder

    with step_process(run_folder(run, id), "consider"):
        from kascade.steps.consider import consider_run

        form = (recipe, model, data, scale, budget, overrides, start_from, stages, approve)
        return consider_run(run_folder(run, id), compiled, form, id)
