"""Lets the champion answer the benchmarks again, where nothing else changed."""

from components.image import step_component


@step_component
def examine(run: str, id: str) -> bool:
    """Return whether the champion fell, for the next run to train on."""
    from kascade.run.process import step_process
    from kascade.steps.begin import run_folder

    with step_process(run_folder(run, id), "examine"):
        from kascade.steps.examine import examine_champion

        return bool(examine_champion(run_folder(run, id)))
