"""Trains one stage from the accepted checkpoint before it."""

from components.image import step_component


@step_component
def train(run: str, stage: str, parent: str) -> str:
    """Return the trained checkpoint's reference; a finished one is found by its key."""
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.train"):
        from kascade.cluster.place import train_inline
        from kascade.cluster.worker import Work

        return train_inline(Work(run, stage, "train", parent, parent))
