"""Runs every benchmark on a checkpoint, and judges it against the best accepted ones."""

from components.image import step_component


@step_component
def evaluate(run: str, stage: str, attempt: str, checkpoint: str, parent: str) -> bool:
    """Return whether it regressed; scores and verdict go to the run's folder."""
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.{attempt}.evaluate"):
        from kascade.steps import steps

        return steps.evaluate(run, stage, checkpoint, parent)
