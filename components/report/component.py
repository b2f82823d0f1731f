"""Writes the report and the model card from the run's folder, also when the cascade failed."""

from kfp import dsl

from components.image import step_component


@step_component
def report(*, run: str, id: str, page: dsl.Output[dsl.HTML], scores: dsl.Output[dsl.Metrics]) -> str:
    """Return the path of the HTML page, or of preflight's error where no run began; the page shows it."""
    from kascade.run.process import step_process
    from kascade.steps.begin import run_folder

    with step_process(run_folder(run, id), "report"):
        from kascade.steps import pages, steps

        written = steps.report(run_folder(run, id))
        pages.write(page.path, pages.report_page(written))
        scores.metadata.update(pages.final_scores(run_folder(run, id)))
        return written
