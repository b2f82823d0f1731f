"""Trains a stage, or a recovery of it, in a job of several nodes, and waits for it."""

from kfp import dsl

from components.image import step_component

HANDED_ON = [
    dsl.TaskConfigField.RESOURCES,
    dsl.TaskConfigField.KUBERNETES_TOLERATIONS,
    dsl.TaskConfigField.KUBERNETES_NODE_SELECTOR,
    dsl.TaskConfigField.KUBERNETES_AFFINITY,
    dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.ENV, apply_to_task=True),
    dsl.TaskConfigPassthrough(field=dsl.TaskConfigField.KUBERNETES_VOLUMES, apply_to_task=True),
]


@step_component(handed_on=HANDED_ON)
def launch(
    *, run: str, stage: str, attempt: str, checkpoint: str, parent: str, task_config: dsl.TaskConfig
) -> str:
    """Return the trained checkpoint's reference; a finished one is found by its key."""
    from kascade.run.process import step_process

    with step_process(run, f"{stage}.{attempt}"):
        from dataclasses import asdict

        from kascade.cluster.place import launch_step
        from kascade.cluster.worker import Work

        return launch_step(Work(run, stage, attempt, checkpoint, parent), asdict(task_config))
