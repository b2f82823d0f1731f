"""Compares a checkpoint with the best accepted ones, benchmark by benchmark."""

from components.image import step_component


@step_component
def verdict(*, run: str, stage: str, attempt: str, checkpoint: str, parent: str, fingerprint: str) -> bool:
    """Return whether it regressed; `fingerprint` only tells cached results apart."""
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, f"{stage}.{attempt}.verdict"):
        from kascade.stages import steps

        return steps.verdict(run, stage, checkpoint, parent)
