"""One guarded stage as a sub-pipeline: train, evaluate, judge, recover where it regressed, settle."""

from collections.abc import Callable

from kfp import dsl

from kascade.recipe.identity import fingerprint
from kascade.recipe.schema import Recipe
from pipelines.pods import labels, place, variant
from pipelines.steps import Component, Steps, Task, Thread, Value


def _pipeline(name: str) -> Callable[[Component], Component]:
    """`dsl.pipeline`, typed."""
    decorate: Callable[[Component], Component] = dsl.pipeline(name=name)
    return decorate


def switched_stage(recipe: Recipe, number: int, steps: Steps) -> Component:
    """Stage `number` (from 0) behind its switch; where that is off, the parent is handed on."""
    stage = _Stage(recipe, number, steps)
    guarded = stage.pipeline()

    @_pipeline(name=f"stage-{stage.label}")
    def switched(run: str, revision: str, parent: str, enabled: bool) -> str:
        with dsl.If(enabled == True, name="on"):  # noqa: E712 (a channel, not a bool)
            accepted = guarded(run=run, revision=revision, parent=parent)
            accepted.set_display_name("Train and guard")
        with dsl.Else(name="off"):
            skipped = stage.light(steps.keep(checkpoint=parent)).set_display_name("Left out")
        result: str = dsl.OneOf(accepted.output, skipped.output)
        return result

    return switched


class _Stage:
    """Builds the sub-pipelines of one stage."""

    def __init__(self, recipe: Recipe, number: int, steps: Steps) -> None:
        self.steps = steps
        stage = recipe.stages[number]
        self.name = stage.name
        self.rounds = recipe.guard.recovery.rounds
        self.label = f"{number + 1}-{self.name}".replace("_", "-")
        self.fingerprint = fingerprint(recipe, self.name)
        self.cluster = recipe.cluster
        self.variant = labels(recipe)[self.name]
        self.launched = recipe.cluster.shape_of(self.name, stage.kind) != "inline"

    def pipeline(self) -> Component:
        recovery: Component | None = None
        for round_ in range(self.rounds, 0, -1):  # kfp wants the inner pipelines to be built first
            recovery = self._recovery(round_, following=recovery)

        @_pipeline(name=f"guarded-{self.label}")
        def guarded(run: str, revision: str, parent: str) -> str:
            thread = Thread(run, revision)
            trained = self._learn(thread, "train", parent, parent).set_display_name("Train")
            regressed = self._judge(thread, "train", trained.output, parent)
            candidate = self._recovered_or_kept(recovery, thread, regressed, trained.output, parent)
            settled = self.steps.settle(
                run=run,
                stage=self.name,
                candidate=candidate,
                parent=parent,
                fingerprint=thread.fingerprint(self.fingerprint),
            )
            accepted: str = self.light(settled).set_display_name("Settle").after(regressed).output
            return accepted

        return guarded

    def light(self, task: Task) -> Task:
        """A step that holds no model."""
        return place(task, self.cluster, self.cluster.light)

    def _heavy(self, component: Component, *, launches: bool = False, **arguments: Value) -> Task:
        """A step that holds a model, on the stage's own pods."""
        task = variant(component, self.variant)(**arguments)
        return place(task, self.cluster, self.cluster.placement(self.name), launches=launches)

    def _learn(self, thread: Thread, attempt: str, checkpoint: Value, parent: Value) -> Task:
        """Train, or recover: in the step's own pod, or in a job that it launches."""
        about = {
            "run": thread.run,
            "stage": self.name,
            "parent": parent,
            "fingerprint": thread.fingerprint(self.fingerprint),
        }
        if self.launched:
            launch = self.steps.launch
            return self._heavy(launch, launches=True, attempt=attempt, checkpoint=checkpoint, **about)
        if attempt == "train":
            return self._heavy(self.steps.train, **about)
        round_ = int(attempt.rpartition("-")[2])
        return self._heavy(self.steps.recover, round=round_, checkpoint=checkpoint, **about)

    def _judge(self, thread: Thread, attempt: str, checkpoint: Value, parent: Value) -> Task:
        """The exams of one attempt, then the verdict, whose output says whether it regressed."""
        about = {
            "run": thread.run,
            "stage": self.name,
            "attempt": attempt,
            "checkpoint": checkpoint,
            "parent": parent,
            "fingerprint": thread.fingerprint(self.fingerprint),
        }
        exam = self._heavy(self.steps.evaluate, **about).set_display_name("Evaluate")
        return self.light(self.steps.verdict(**about)).set_display_name("Verdict").after(exam)

    def _recovered_or_kept(
        self, recovery: Component | None, thread: Thread, regressed: Task, checkpoint: Value, parent: Value
    ) -> Value:
        """`checkpoint`, or what `recovery` makes of it when it regressed; None: no round is left."""
        if recovery is None:
            return checkpoint
        with dsl.If(regressed.output == True, name="regressed"):  # noqa: E712 (a channel, not a bool)
            recovered = recovery(
                run=thread.run, revision=thread.revision, checkpoint=checkpoint, parent=parent
            )
            recovered.set_display_name("Recovery")
        with dsl.Else(name="held"):
            kept = self.light(self.steps.keep(checkpoint=checkpoint)).set_display_name("Keep")
        return dsl.OneOf(recovered.output, kept.output)

    def _recovery(self, round_: int, following: Component | None) -> Component:
        attempt = f"recover-{round_}"

        @_pipeline(name=f"recovery-{round_}-{self.label}")
        def recovery(run: str, revision: str, checkpoint: str, parent: str) -> str:
            thread = Thread(run, revision)
            recovered = self._learn(thread, attempt, checkpoint, parent)
            recovered.set_display_name(f"Recover, round {round_}")
            regressed = self._judge(thread, attempt, recovered.output, parent)
            candidate: str = self._recovered_or_kept(following, thread, regressed, recovered.output, parent)
            return candidate

        return recovery
