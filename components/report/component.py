"""Writes the report and the model card from the run's folder."""

from components.image import step_component


@step_component
def report(run: str, fingerprint: str) -> str:
    """Return the path of the HTML page; `fingerprint` only tells cached results apart."""
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, "report"):
        from kascade.stages import steps

        return steps.report(run)
