"""The DAG of a recipe: which steps, in which order, under which conditions.

Between tasks travel strings and bools only: a checkpoint's reference goes through `dsl.OneOf` where two
branches meet, and conditions look at bools. Stages are sub-pipelines (`pipelines.stage`), so that a person
sees the cascade first and its steps on a click. (kfp reads annotations as types, so they may not be strings.)
"""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from kascade.recipe.checks import BASE
from kascade.recipe.identity import fingerprint, parent_of, teachers_of
from kascade.recipe.schema import Recipe
from kascade.recipe.titles import stage_title
from kascade.stages.form import pack
from pipelines.pods import place
from pipelines.run_form import switch_name, with_form
from pipelines.stage import switched_stage
from pipelines.steps import Component, Steps, Task, Thread, Value

__all__ = ["Steps", "build_cascade"]


def build_cascade(recipe: Recipe, steps: Steps, scales: Mapping[str, Any] | None = None) -> Any:
    """The pipeline of a recipe; its parameters are the run form's (`pipelines.run_form`).

    scales: those that the form may name.
    """
    stages = {stage.name: switched_stage(recipe, number, steps) for number, stage in enumerate(recipe.stages)}
    light = recipe.cluster.light
    packed = pack(recipe, scales)

    def cascade(run: Value, **form: Value) -> None:
        run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        report = steps.report(run=run, id=run_id).set_display_name("Report")
        place(report, recipe.cluster, light).set_caching_options(False)
        with dsl.ExitHandler(report, name="Cascade"):
            switches = {
                stage.name: form.pop(switch_name(n, stage.name)) for n, stage in enumerate(recipe.stages, 1)
            }
            text = " ".join(f"{name}={switch}" for name, switch in switches.items())
            begun = steps.preflight(run=run, id=run_id, compiled=packed, stages=text, **form)
            place(begun, recipe.cluster, light).set_display_name("Preflight")
            begun.set_caching_options(False)  # what it checks is not a function of its arguments
            thread = Thread(begun.outputs["run"], begun.outputs["revision"])
            base = begun.outputs["base"], _examine_base(recipe, steps, thread, begun.outputs["base"])
            final, ends = _wire_stages(recipe, stages, thread, base, switches)
            finish = steps.finish(run=thread.run, checkpoint=final).set_display_name("Finish").after(*ends)
            place(finish, recipe.cluster, light).set_caching_options(False)

    limits = dsl.PipelineConfig(
        ttl_seconds_after_finished=recipe.cluster.keep_finished_s,
        active_deadline_seconds=recipe.cluster.active_deadline_s,
    )
    decorate = dsl.pipeline(name=recipe.name, description=recipe.description, pipeline_config=limits)
    return decorate(with_form(cascade, recipe))


def _examine_base(recipe: Recipe, steps: Steps, thread: Thread, base: Value) -> Task:
    """The exams of the base model: what the first stage is compared with."""
    exam = steps.evaluate(
        run=thread.run,
        stage=BASE,
        attempt="train",
        checkpoint=base,
        parent=base,
        fingerprint=thread.fingerprint(fingerprint(recipe, BASE)),
    )
    return place(exam, recipe.cluster, recipe.cluster.default).set_display_name("Exams of the base model")


def _wire_stages(
    recipe: Recipe,
    stages: Mapping[str, Component],
    thread: Thread,
    base: tuple[Value, Task],
    switches: Mapping[str, Value],
) -> tuple[Value, list[Task]]:
    """Call every stage from its parent. Returns the main line's last checkpoint and all stages' tasks.

    A stage whose teachers are other stages waits for them, whatever line they are on.
    """
    main_line, base_exam = base
    tasks: dict[str, Task] = {}
    for number, stage in enumerate(recipe.stages, 1):
        parent = parent_of(recipe, stage.name)
        task = stages[stage.name](
            run=thread.run,
            revision=thread.revision,
            enabled=switches[stage.name],
            parent=tasks[parent].output if parent else base[0],
        )
        others = [tasks[name] for name in teachers_of(recipe, stage.name) if name != parent]
        task.after(base_exam, *others)
        tasks[stage.name] = task.set_display_name(f"{number} · {stage_title(stage)}")
        if not stage.side_branch:
            main_line = task.output
    return main_line, list(tasks.values())
