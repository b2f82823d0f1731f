"""Ends a stage: its last attempt is accepted, rolled back, or the cascade stops."""

from components.image import step_component


@step_component
def settle(run: str, stage: str, parent: str) -> str:
    """Return the accepted checkpoint's reference: that of `parent` where the stage was left out."""
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.settle"):
        from kascade.steps import steps

        return steps.settle(run, stage, parent)
