"""The DAG of a recipe: which steps, in which order, under which conditions.

Between tasks travel strings and bools only: a checkpoint's reference goes through `dsl.OneOf` where two
branches meet, and conditions look at bools. Stages are sub-pipelines, so that a person sees the cascade
first and its steps on a click. (kfp reads annotations as types, so they may not be strings here.)
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from kfp import dsl

from kascade.recipe.checks import BASE
from kascade.recipe.identity import fingerprint, parent_of, teachers_of
from kascade.recipe.schema import Recipe
from kascade.recipe.titles import stage_title

Component = Callable[..., Any]
Task = Any  # a kfp PipelineTask
Value = Any  # a kfp channel: the value it stands for is known when the pipeline runs


@dataclass(frozen=True, slots=True)
class Steps:
    """The components that the DAG is made of, one a step (see `components/`).

    library: modules that their bodies import; whoever runs many tasks may load them beforehand.
    """

    preflight: Component
    train: Component
    evaluate: Component
    verdict: Component
    recover: Component
    keep: Component
    settle: Component
    report: Component
    library: tuple[str, ...] = ()

    @classmethod
    def shipped(cls) -> Self:
        """Those of `components/`."""
        names = [field.name for field in fields(cls) if field.name != "library"]
        components = {name: getattr(importlib.import_module(f"components.{name}"), name) for name in names}
        return cls(**components, library=("kascade.stages.steps", "mlflow"))


def _pipeline(name: str, description: str | None = None) -> Callable[[Component], Component]:
    """`dsl.pipeline`, typed."""
    decorate: Callable[[Component], Component] = dsl.pipeline(name=name, description=description)
    return decorate


def build_cascade(recipe: Recipe, steps: Steps) -> Any:
    """The pipeline of a recipe; its run-time parameter is `run`, its output the final checkpoint."""
    stages = {
        stage.name: _Stage(recipe, number, steps).pipeline() for number, stage in enumerate(recipe.stages)
    }

    @_pipeline(name=recipe.name, description=recipe.description)
    def cascade(run: str = f"/kascade/runs/{recipe.name}") -> str:
        whole = fingerprint(recipe)
        base = steps.preflight(run=run, fingerprint=whole).set_display_name("Preflight")
        base.set_caching_options(False)  # what it checks is not a function of its arguments
        accepted: str
        accepted, ends = _wire_stages(recipe, stages, run, _examine_base(recipe, steps, run, base.output))
        report = steps.report(run=run, fingerprint=whole).set_display_name("Report").after(*ends)
        report.set_caching_options(False)
        return accepted

    return cascade


def _examine_base(recipe: Recipe, steps: Steps, run: Value, base: Value) -> tuple[Value, Task]:
    """The exams of the base model: what the first stage is compared with."""
    exam = steps.evaluate(
        run=run,
        stage=BASE,
        attempt="train",
        checkpoint=base,
        parent=base,
        fingerprint=fingerprint(recipe, BASE),
    )
    return base, exam.set_display_name("Exams of the base model")


def _wire_stages(
    recipe: Recipe, stages: Mapping[str, Component], run: Value, base: tuple[Value, Task]
) -> tuple[Value, list[Task]]:
    """Call every stage from its parent. Returns the main line's last checkpoint and all stages' tasks.

    A stage whose teachers are other stages waits for them, whatever line they are on.
    """
    main_line, base_exam = base
    tasks: dict[str, Task] = {}
    for number, stage in enumerate(recipe.stages, 1):
        parent = parent_of(recipe, stage.name)
        task = stages[stage.name](run=run, parent=tasks[parent].output if parent else base[0])
        others = [tasks[name] for name in teachers_of(recipe, stage.name) if name != parent]
        task.after(base_exam, *others)
        tasks[stage.name] = task.set_display_name(f"{number} · {stage_title(stage)}")
        if not stage.side_branch:
            main_line = task.output
    return main_line, list(tasks.values())


class _Stage:
    """One guarded stage: train, evaluate, judge, recover where it regressed, settle."""

    def __init__(self, recipe: Recipe, number: int, steps: Steps) -> None:
        self.steps = steps
        self.name = recipe.stages[number].name
        self.rounds = recipe.guard.recovery.rounds
        self.label = f"{number + 1}-{self.name}".replace("_", "-")
        self.fingerprint = fingerprint(recipe, self.name)

    def pipeline(self) -> Component:
        recovery: Component | None = None
        for round_ in range(self.rounds, 0, -1):  # kfp wants the inner pipelines to be built first
            recovery = self._recovery(round_, following=recovery)

        @_pipeline(name=f"stage-{self.label}")
        def stage(run: str, parent: str) -> str:
            trained = self.steps.train(run=run, stage=self.name, parent=parent, fingerprint=self.fingerprint)
            trained.set_display_name("Train")
            regressed = self._judge(run, "train", trained.output, parent)
            candidate = self._recovered_or_kept(recovery, run, regressed, trained.output, parent)
            settled = self.steps.settle(
                run=run, stage=self.name, candidate=candidate, parent=parent, fingerprint=self.fingerprint
            )
            accepted: str = settled.set_display_name("Settle").after(regressed).output
            return accepted

        return stage

    def _judge(self, run: Value, attempt: str, checkpoint: Value, parent: Value) -> Task:
        """The exams of one attempt, then the verdict, whose output says whether it regressed."""
        about = {
            "run": run,
            "stage": self.name,
            "attempt": attempt,
            "checkpoint": checkpoint,
            "parent": parent,
            "fingerprint": self.fingerprint,
        }
        exam = self.steps.evaluate(**about).set_display_name("Evaluate")
        return self.steps.verdict(**about).set_display_name("Verdict").after(exam)

    def _recovered_or_kept(
        self, recovery: Component | None, run: Value, regressed: Task, checkpoint: Value, parent: Value
    ) -> Value:
        """`checkpoint`, or what `recovery` makes of it when it regressed; None: no round is left."""
        if recovery is None:
            return checkpoint
        with dsl.If(regressed.output == True, name="regressed"):  # noqa: E712 (a channel, not a bool)
            recovered = recovery(run=run, checkpoint=checkpoint, parent=parent)
            recovered.set_display_name("Recovery")
        with dsl.Else(name="held"):
            kept = self.steps.keep(checkpoint=checkpoint).set_display_name("Keep")
        return dsl.OneOf(recovered.output, kept.output)

    def _recovery(self, round_: int, following: Component | None) -> Component:
        @_pipeline(name=f"recovery-{round_}-{self.label}")
        def recovery(run: str, checkpoint: str, parent: str) -> str:
            recovered = self.steps.recover(
                run=run,
                stage=self.name,
                round=round_,
                checkpoint=checkpoint,
                parent=parent,
                fingerprint=self.fingerprint,
            ).set_display_name(f"Recover, round {round_}")
            regressed = self._judge(run, f"recover-{round_}", recovered.output, parent)
            candidate: str = self._recovered_or_kept(following, run, regressed, recovered.output, parent)
            return candidate

        return recovery
