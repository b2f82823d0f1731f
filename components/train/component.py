"""Trains one stage from the accepted checkpoint before it."""

from components.image import step_component


@step_component
def train(run: str, stage: str, parent: str, fingerprint: str) -> str:
    """Return the trained checkpoint's reference; `fingerprint` only tells cached results apart."""
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, f"{stage}.train"):
        from kascade.stages import steps

        return steps.train(run, stage, parent)
