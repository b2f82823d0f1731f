"""Checks model, data and graders, and imports the base model into the run."""

from components.image import step_component


@step_component
def preflight(run: str, fingerprint: str) -> str:
    """Return the base checkpoint's reference; `fingerprint` only tells cached results apart."""
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, "preflight"):
        from kascade.stages import steps

        return steps.preflight(run)
