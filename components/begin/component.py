"""Decides whether a stage begins: the run form, a person's word and the budget."""

from components.image import step_component


@step_component
def begin(run: str, stage: str, parent: str) -> bool:
    """Return whether it begins; its folder says why it does not. Stage `retain` is the end check."""
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.begin"):
        from kascade.steps import steps

        return steps.begin(run, stage, parent)
