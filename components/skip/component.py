"""Says why a stage was not begun: the run form left it out, or the run waits."""

from kfp import dsl

from components.image import step_component


@step_component
def skip(*, run: str, stage: str, parent: str, why: dsl.Output[dsl.Markdown]) -> None:
    """Put on the page of the run what it waits for, and what to do."""
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.skip"):
        from kascade.steps import pages, steps

        pages.write(why.path, pages.waiting_markdown(stage, steps.skip(run, stage, parent)))
