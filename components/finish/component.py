"""Writes down which checkpoint the cascade ended with."""

from components.image import step_component


@step_component
def finish(run: str, checkpoint: str) -> str:
    """Return the reference of the cascade's final checkpoint."""
    from kascade.run.process import step_process

    with step_process(run, "finish"):
        from kascade.steps import steps

        return steps.finish(run, checkpoint)
