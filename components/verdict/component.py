"""Shows what was judged of a checkpoint: before, after and interval of every benchmark, and the reasons."""

from kfp import dsl

from components.image import step_component


@step_component
def verdict(
    *,
    run: str,
    stage: str,
    attempt: str,
    parent: str,
    reasons: dsl.Output[dsl.Markdown],
    scores: dsl.Output[dsl.Metrics],
) -> None:
    """Put the verdict on the page of the run, and its scores where runs are compared."""
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.{attempt}.verdict"):
        from kascade.steps import pages, steps

        found = steps.verdict(run, stage, attempt, parent)
        pages.write(reasons.path, pages.verdict_markdown(found))
        scores.metadata.update(pages.verdict_scores(found))
