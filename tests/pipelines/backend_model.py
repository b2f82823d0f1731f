"""What Kubeflow's backend makes of a compiled pipeline, as far as its shape decides: states, pods, nodes.

A model of KFP 2.17's launcher and driver and of Argo. When a container ends, its DAG's children in COMPLETE,
CACHED or CANCELED are counted: as many as the DAG has tasks, and the DAG is COMPLETE; else, with a FAILED
child, it is FAILED; else it stays as it is. After a change the same is asked of the DAG above. A branch that
is left out is CANCELED by its own driver, which asks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from compiled import dependencies, is_conditional, is_dag, tasks_of

SKIPPED, CONTAINER, TAKEN = range(3)
ENDED = ("COMPLETE", "CACHED", "CANCELED")
Taken = Callable[[str, str], bool]  # (stage, title of an If) -> whether it is taken


@dataclass
class Execution:
    """One task as it was run."""

    name: str
    title: str
    task: dict[str, Any]
    parent: Self | None
    num_tasks: int = 0  # of a DAG
    state: str = "RUNNING"
    children: list[Self] = field(default_factory=list)

    @property
    def is_dag(self) -> bool:
        return self.num_tasks > 0

    def settle(self) -> None:
        """A container ended below: ask what that makes of this DAG, and then of the one above."""
        ended = sum(child.state in ENDED for child in self.children)
        if ended == self.num_tasks:
            state = "COMPLETE"
        elif any(child.state == "FAILED" for child in self.children):
            state = "FAILED"
        else:
            return
        changed, self.state = state != self.state, state
        if changed and self.parent is not None:
            self.parent.settle()


@dataclass(frozen=True)
class Story:
    """What happens to a pipeline. failing: containers as "STAGE/TITLE" whose first try fails."""

    spec: dict[str, Any]
    taken: Taken
    failing: frozenset[str] = frozenset()

    def run(self, task: dict[str, Any]) -> Execution:
        """A DAG task of the pipeline, as the backend would run it."""
        root = Execution("root", task["taskInfo"]["name"], task, None)
        self._run(root, "")
        return root

    def _run(self, dag: Execution, stage: str) -> None:
        """Everything inside a DAG.

        A branch that is left out has a driver alone, so of tasks that may run at once it ends first. Of the
        others a branch ends last: the order in which the fewest DAGs are closed.
        """
        tasks = tasks_of(self.spec, dag.task)
        dag.num_tasks = len(tasks)
        left, ended = dict(tasks), set[str]()
        while left:
            ready = [name for name, one in left.items() if dependencies(one) <= ended]
            name = min(ready, key=lambda one: (self._order(tasks[one], stage or one), one))
            one = left.pop(name)
            inside = name if not stage and name.startswith("stage-") else stage
            child = Execution(name, one["taskInfo"]["name"], one, dag)
            dag.children.append(child)
            if self._order(one, inside) == SKIPPED:
                child.state = "CANCELED"
            elif is_dag(self.spec, one):
                self._run(child, inside)
            else:
                failed = f"{inside}/{child.title}" in self.failing
                for child.state in ["FAILED", "COMPLETE"] if failed else ["COMPLETE"]:
                    dag.settle()
            ended.add(name)

    def _order(self, task: dict[str, Any], stage: str) -> int:
        if not is_conditional(task):
            return CONTAINER
        return TAKEN if self.taken(stage, task["taskInfo"]["name"]) else SKIPPED


def executions(root: Execution) -> Iterator[Execution]:
    yield root
    for child in root.children:
        yield from executions(child)


@dataclass(frozen=True)
class Counts:
    """pods: drivers and executors. nodes: in Argo's status, without and with a Retry node above each."""

    pods: int
    nodes: int
    nodes_with_retries: int


def counts(root: Execution) -> Counts:
    """Of what ran. A container has a driver pod, an executor pod and a DAG between them; a DAG a driver pod
    and itself; a branch that is left out a driver pod and one that is skipped."""
    pods = nodes = retries = 0
    for one in executions(root):
        if one.state == "CANCELED":
            pods, nodes, retries = pods + 1, nodes + 2, retries + 3
        elif one.is_dag:
            pods, nodes, retries = pods + 1, nodes + 2, retries + 4
        else:
            pods, nodes, retries = pods + 2, nodes + 3, retries + 6
    return Counts(pods, nodes, retries)
