"""Distils back what a stage lost from the best accepted checkpoint of each lost domain."""

from components.image import step_component


@step_component
def recover(*, run: str, stage: str, round: int, checkpoint: str, parent: str, fingerprint: str) -> str:
    """Return the recovered checkpoint's reference; `fingerprint` only tells cached results apart."""
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, f"{stage}.recover-{round}"):
        from kascade.stages import steps

        return steps.recover(run, stage, round, checkpoint, parent)
