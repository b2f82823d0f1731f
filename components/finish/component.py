"""Writes down which checkpoint the cascade ended with."""

from components.image import step_component


@step_component
def finish(run: str, checkpoint: str) -> str:
    """Return the reference of the cascade's final checkpoint."""
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, "finish"):
        from kascade.stages import steps

        return steps.finish(run, checkpoint)
