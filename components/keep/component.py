"""Hands a checkpoint on: a branch of the pipeline needs a task of its own to take it from."""

from components.image import step_component


@step_component
def keep(checkpoint: str) -> str:
    """Return what it was given: `dsl.OneOf` takes no outputs of tasks outside its branches."""
    return checkpoint
