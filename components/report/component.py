"""Writes the report and the model card from the run's folder, also when the cascade failed."""

from components.image import step_component


@step_component
def report(run: str, id: str) -> str:
    """Return the path of the HTML page, or of preflight's error where no run began."""
    from kascade.stages.begin import run_folder
    from kascade.stages.task import pipeline_task

    with pipeline_task(run_folder(run, id), "report"):
        from kascade.stages import steps

        return steps.report(run_folder(run, id))
