"""The end check: holds the cascade's last checkpoint against all that was once best."""

from components.image import step_component


@step_component
def retain(run: str, checkpoint: str) -> str:
    """Return the reference of the checkpoint that the cascade ends with."""
    from kascade.run.process import step_process

    with step_process(run, "retain"):
        from kascade.steps import steps

        return steps.retain(run, checkpoint)
