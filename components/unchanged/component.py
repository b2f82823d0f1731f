"""Says why a run that is started again and again did not train."""

from kfp import dsl

from components.image import step_component


@step_component
def unchanged(*, run: str, id: str, why: dsl.Output[dsl.Markdown]) -> None:
    """Put the reason on the page of the run."""
    from kascade.run.process import step_process
    from kascade.steps.begin import run_folder

    with step_process(run_folder(run, id), "unchanged"):
        from kascade.steps import pages
        from kascade.steps.consider import reason_markdown

        pages.write(why.path, reason_markdown(run_folder(run, id)))
