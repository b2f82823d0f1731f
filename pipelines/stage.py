"""One guarded stage as a sub-pipeline: begin, train, evaluate and judge, recover where it regressed.

    { Begin, If begins { Train, Evaluate, Verdict, If "Recovery, round 1" { … } }, If not { Why } }, Settle

*Begin* is a light step: no pod waits for a person or for money. Kubeflow counts a DAG as finished when a
container ends in it after all else did, and a branch that is left out ends nothing. So one of the two
branches behind *Begin* ends a container, and beside a recovery stands *Verdict*, on which nothing depends.
*Settle* lies beside the whole: what waits for a branch is left out with it. The end check has the same gate.
"""

from collections.abc import Callable
from typing import Any

from kfp import dsl

from kascade.recipe.checks import BASE
from kascade.recipe.schema import Recipe
from kascade.run.gate import END_CHECK
from pipelines.pods import labels, place, variant
from pipelines.steps import Component, Steps, Task, Value


def _pipeline(name: str) -> Callable[[Component], Component]:
    """`dsl.pipeline`, typed."""
    decorate: Callable[[Component], Component] = dsl.pipeline(name=name)
    return decorate


def branch(flag: Value, name: str, *, wanted: bool = True) -> Any:
    """A branch that is taken when a bool of the pipeline is `wanted`, under a name for people."""
    return dsl.If(flag == wanted, name=name)


def guarded_stage(recipe: Recipe, number: int, steps: Steps) -> Component:
    """Stage `number` (from 0) behind its gate; *Settle* finds what it made."""
    stage = _Stage(recipe, number, steps)

    @_pipeline(name=f"stage-{stage.label}")
    def guarded(run: str, parent: str) -> None:
        begins = stage.light(steps.begin, run=run, parent=parent).set_display_name("Begin")
        with branch(begins.output, "Train and guard"):
            trained = stage.learn(run, "train", parent, parent).set_display_name("Train")
            stage.guard(run, 0, trained.output, parent)
        with branch(begins.output, "Not begun", wanted=False):
            stage.light(steps.skip, run=run, parent=parent).set_display_name("Why")

    return guarded


def gated_end_check(recipe: Recipe, steps: Steps) -> Component:
    """The end check behind its gate; *Finish* finds what it ended with."""
    cluster = recipe.cluster

    @_pipeline(name="end-check")
    def gated(run: str, checkpoint: str) -> None:
        about = {"run": run, "stage": END_CHECK, "parent": checkpoint}
        begins = place(steps.begin(**about), cluster, cluster.light).set_display_name("Begin")
        with branch(begins.output, "Check"):
            retained = steps.retain(run=run, checkpoint=checkpoint)
            place(retained, cluster, cluster.benchmark_pods(BASE)).set_display_name("End check")
        with branch(begins.output, "Not begun", wanted=False):
            place(steps.skip(**about), cluster, cluster.light).set_display_name("Why")

    return gated


class _Stage:
    """Builds the sub-pipeline of one stage."""

    def __init__(self, recipe: Recipe, number: int, steps: Steps) -> None:
        self.steps = steps
        stage = recipe.stages[number]
        self.name = stage.name
        self.rounds = recipe.guard.recovery.rounds
        self.label = f"{number + 1}-{self.name}".replace("_", "-")
        self.cluster = recipe.cluster
        self.variant = labels(recipe)[self.name]
        self.launched = recipe.cluster.shape_of(stage) != "inline"

    def guard(self, run: Value, round_: int, checkpoint: Value, parent: Value) -> None:
        """Judge what attempt `round_` (0: the training) made; recover what it lost while rounds are left."""
        attempt = f"recover-{round_}" if round_ else "train"
        about = {"run": run, "attempt": attempt, "parent": parent}
        regressed = self._evaluate(checkpoint=checkpoint, **about)
        regressed.set_display_name("Evaluate")
        self.light(self.steps.verdict, **about).set_display_name("Verdict").after(regressed)
        if round_ == self.rounds:
            return
        following = round_ + 1
        with branch(regressed.output, f"Recovery, round {following}"):
            recovered = self.learn(run, f"recover-{following}", checkpoint, parent)
            self.guard(run, following, recovered.set_display_name("Recover").output, parent)

    def light(self, component: Component, **arguments: Value) -> Task:
        """A step that holds no model."""
        return place(component(stage=self.name, **arguments), self.cluster, self.cluster.light)

    def _heavy(self, component: Component, *, launches: bool = False, **arguments: Value) -> Task:
        """A step that holds a model, on the stage's own pods."""
        task = variant(component, self.variant)(stage=self.name, **arguments)
        return place(task, self.cluster, self.cluster.placement(self.name), launches=launches)

    def _evaluate(self, **arguments: Value) -> Task:
        """The benchmarks: on pods that all benchmarks share, or on the stage's own."""
        if self.cluster.benchmarks is None:
            return self._heavy(self.steps.evaluate, **arguments)
        task = self.steps.evaluate(stage=self.name, **arguments)
        return place(task, self.cluster, self.cluster.benchmarks)

    def learn(self, run: Value, attempt: str, checkpoint: Value, parent: Value) -> Task:
        """Train, or recover: in the step's own pod, or in a job that it launches."""
        about = {"run": run, "parent": parent}
        if self.launched:
            launch = self.steps.launch
            return self._heavy(launch, launches=True, attempt=attempt, checkpoint=checkpoint, **about)
        if attempt == "train":
            return self._heavy(self.steps.train, **about)
        round_ = int(attempt.rpartition("-")[2])
        return self._heavy(self.steps.recover, round=round_, checkpoint=checkpoint, **about)
