"""Ends a stage: the candidate is accepted, rolled back, or the cascade stops."""

from components.image import step_component


@step_component
def settle(run: str, stage: str, candidate: str, parent: str, fingerprint: str) -> str:
    """Return the accepted checkpoint's reference; `fingerprint` only tells cached results apart."""
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, f"{stage}.settle"):
        from kascade.stages import steps

        return steps.settle(run, stage, candidate, parent)
