"""The DAG of a recipe: which steps, in which order, under which conditions.

Between tasks travel strings and bools only, and conditions look at bools. Stages are sub-pipelines
(`pipelines.stage`), so that a person sees the cascade first and its steps on a click. Kubeflow's cache is
off for every step: finished work is found by its key, and a result that the cache hands on ends no DAG.
(kfp reads annotations as types, so they may not be strings.)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kfp import dsl

from kascade.recipe.checks import BASE
from kascade.recipe.methods import stage_title
from kascade.recipe.order import awaited_by, parent_of
from kascade.recipe.run_form import pack
from kascade.recipe.schema import Recipe
from pipelines.literal import for_people
from pipelines.pods import place
from pipelines.run_form import switch_name, with_form
from pipelines.stage import branch, gated_end_check, guarded_stage
from pipelines.steps import Component, Steps, Task, Value

__all__ = ["Steps", "build_cascade"]


def build_cascade(recipe: Recipe, steps: Steps, scales: Mapping[str, Any] | None = None) -> Any:
    """The pipeline of a recipe; its parameters are the run form's (`pipelines.run_form`).

    scales: those that the form may name.
    """
    stages = {stage.name: guarded_stage(recipe, number, steps) for number, stage in enumerate(recipe.stages)}
    end_check = gated_end_check(recipe, steps)
    light = recipe.cluster.light
    packed = pack(recipe, scales)

    def cascade(run: Value, **form: Value) -> None:
        run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        report = steps.report(run=run, id=run_id).set_display_name("Report")
        place(report, recipe.cluster, light)
        with dsl.ExitHandler(report, name="Cascade"):
            switches = {
                stage.name: form.pop(switch_name(n, stage.name)) for n, stage in enumerate(recipe.stages, 1)
            }
            text = " ".join(f"{name}={switch}" for name, switch in switches.items())
            asked = {"run": run, "id": run_id, "compiled": packed, "stages": text, **form}
            with _where_it_trains(recipe, steps, asked):
                begun = steps.preflight(**asked)
                place(begun, recipe.cluster, light).set_display_name("Preflight")
                base = begun.outputs["base"], _examine_base(recipe, steps, begun.outputs)
                final, ends = _wire_stages(recipe, stages, begun.outputs["run"], base, steps)
                checked = end_check(run=begun.outputs["run"], checkpoint=final).after(*ends)
                checked.set_display_name("End check").set_caching_options(False)
                finish = steps.finish(run=begun.outputs["run"], checkpoint=final).after(checked)
                place(finish, recipe.cluster, light).set_display_name("Finish")

    limits = dsl.PipelineConfig(
        ttl_seconds_after_finished=recipe.cluster.keep_finished_s,
        ttl_seconds_after_success=recipe.cluster.keep_finished_s,  # Kubeflow's own defaults for these two win
        ttl_seconds_after_failure=recipe.cluster.keep_finished_s,
        active_deadline_seconds=recipe.cluster.active_deadline_s,
    )
    decorate = dsl.pipeline(
        name=recipe.name, description=for_people(recipe.description), pipeline_config=limits
    )
    return decorate(with_form(cascade, recipe))


@contextmanager
def _where_it_trains(recipe: Recipe, steps: Steps, asked: Mapping[str, Value]) -> Iterator[None]:
    """All of the cascade, behind a light step for a recipe that trains only when something changed."""
    if recipe.retrain is None:
        yield
        return
    considered = steps.consider(**asked)
    place(considered, recipe.cluster, recipe.cluster.light).set_display_name("Anything new?")
    with branch(considered.output, "Something changed"):
        yield
    with branch(considered.output, "Nothing changed", wanted=False):
        here = {"run": asked["run"], "id": asked["id"]}
        why = place(steps.unchanged(**here), recipe.cluster, recipe.cluster.light).set_display_name("Why")
        if recipe.retrain.champion:
            examined = place(steps.examine(**here), recipe.cluster, recipe.cluster.benchmark_pods(BASE))
            why.after(examined.set_display_name("Champion again"))


def _examine_base(recipe: Recipe, steps: Steps, begun: Mapping[str, Value]) -> Task:
    """The exams of the base model: what the first stage is compared with."""
    base = begun["base"]
    exam = steps.evaluate(run=begun["run"], stage=BASE, attempt="train", checkpoint=base, parent=base)
    return place(exam, recipe.cluster, recipe.cluster.benchmark_pods(BASE)).set_display_name(
        "Benchmarks of the base model"
    )


def _wire_stages(
    recipe: Recipe,
    stages: Mapping[str, Component],
    run: Value,
    base: tuple[Value, Task],
    steps: Steps,
) -> tuple[Value, list[Task]]:
    """Call every stage from its parent, and settle it. Returns the main line's last checkpoint and all ends.

    A stage whose teachers are other stages waits for them, whatever line they are on, and one that joins the
    main line for what the main line has.
    """
    main_line, base_exam = base
    tasks: dict[str, Task] = {}
    for number, stage in enumerate(recipe.stages, 1):
        parent = parent_of(recipe, stage.name)
        task = stages[stage.name](
            run=run,
            parent=tasks[parent].output if parent else base[0],
        )
        others = [tasks[name] for name in awaited_by(recipe, stage.name)]
        task.after(base_exam, *others)
        task.set_display_name(for_people(f"{number} · {stage_title(stage)}")).set_caching_options(False)
        settled = steps.settle(run=run, stage=stage.name, parent=tasks[parent].output if parent else base[0])
        place(settled, recipe.cluster, recipe.cluster.light).set_display_name(f"{number} · Settle").after(
            task
        )
        tasks[stage.name] = settled
        if not stage.side_branch:
            main_line = settled.output
    return main_line, list(tasks.values())
