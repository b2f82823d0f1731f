"""Trains one stage from the accepted checkpoint before it."""

from components.image import step_component


@step_component
def train(run: str, stage: str, parent: str, fingerprint: str) -> str:
    """Return the trained checkpoint's reference; `fingerprint` only tells cached results apart."""
    from kascade.stages.task import pipeline_task

    with pipeline_task(run, f"{stage}.train"):
        from kascade.cluster.place import train_inline
        from kascade.cluster.worker import Work

        return train_inline(Work(run, stage, "train", parent, parent))
