"""Distils back what a stage lost from the best accepted checkpoint of each lost domain."""

from components.image import step_component


@step_component
def recover(run: str, stage: str, round: int, checkpoint: str, parent: str) -> str:
    """Return the recovered checkpoint's reference; a finished one is found by its key."""
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.recover-{round}"):
        from kascade.steps import steps

        return steps.recover(run, stage, round, checkpoint, parent)
