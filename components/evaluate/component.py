"""Lets a checkpoint sit every exam."""

from components.image import step_component


@step_component
def evaluate(*, run: str, stage: str, attempt: str, checkpoint: str, parent: str, fingerprint: str) -> None:
    """Scores go to the run's folder; `fingerprint` only tells cached results apart."""
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, f"{stage}.{attempt}.evaluate"):
        from kascade.stages import steps

        steps.evaluate(run, stage, checkpoint, parent)
