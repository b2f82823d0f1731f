"""A run on a cluster as a person follows it: a line for each step that ends, until the run does.

Kubeflow's API lists Argo's nodes: for one step its driver, a DAG, its executor, and with Kubeflow's default
a `Retry` node above each, whose tries have the same name and a number. Only nodes that bear a step's own name
count. No words of a failed step come with them. Those are in its pod's log, between two marks.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kascade.errors import ClusterError
from kascade.run.process import error_in_log, wait_in_log
from pipelines.remote import KubeflowApi
from pipelines.watch import label

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
TOLD = ("SUCCEEDED", "FAILED", "CANCELED")
PATIENCE = 10  # looks in a row that may fail before the watch gives up; the run continues in any case
WHOLE = {
    **{"consider": "anything new?", "examine": "champion again", "unchanged": "nothing changed"},
    **{"preflight": "preflight", "finish": "finish", "retain": "end check", "report": "report"},
}
REPORT = "report"
STEP = re.compile(
    r"(?P<stage>.+?)-(?P<step>begin|skip|settle|(?:train|recover-\d+)(?:-(?:evaluate|verdict))?)(?P<driver>-driver)?"
)
INSIDE = re.compile(r"executor|.*\(\d+\)")


@dataclass(frozen=True, slots=True)
class TaskChange:
    """A step that has ended. name: in a person's words; seconds: since it began; error: its own words."""

    name: str
    state: str
    seconds: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended. waiting: what it waits for, where it ended without an error before its end."""

    run_id: str
    state: str
    error: str | None
    link: str
    waiting: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.state == "SUCCEEDED"


@dataclass(slots=True)
class RemoteWatcher:
    """Looks at one run. read_log: the log of a pod by its name; None where it cannot be had."""

    run_id: str
    read_log: Callable[[str], str | None] = lambda pod: None
    _seen: dict[str, str] = field(default_factory=dict)

    def changes(self, run: Any) -> Iterator[TaskChange]:
        """Every step that has ended since the last look. One that is retried ends again."""
        tasks = (run.run_details.task_details if run.run_details else None) or []
        for task in sorted(tasks, key=lambda one: (one.start_time or one.create_time, one.task_id)):
            name = words(task.display_name or "", failed=task.state == "FAILED")
            if name is None or self._seen.get(task.display_name) == task.state:
                continue
            self._seen[task.display_name] = task.state
            if task.state not in TOLD:
                continue
            seconds = None
            if task.end_time and task.start_time and task.end_time >= task.start_time:
                seconds = (task.end_time - task.start_time).total_seconds()
            error = self._error(task, tasks) if task.state == "FAILED" else None
            yield TaskChange(name, task.state, seconds, error)

    def _error(self, task: Any, tasks: list[Any]) -> str | None:
        """What the failed step wrote about its end, from the last of its pods that has a log."""
        if task.error and task.error.message:
            return str(task.error.message)
        return self._said(task, tasks, error_in_log)

    def _said(self, task: Any, tasks: list[Any], find: Callable[[str], str | None]) -> str | None:
        for pod in reversed(list(_pods(task, {one.task_id: one for one in tasks}))):
            log = self.read_log(pod)
            if log and (found := find(log)):
                return found
        return None

    def waiting(self, run: Any) -> str | None:
        """What a run that ended waits for: its report says so, where Kubeflow says that it succeeded."""
        tasks = (run.run_details.task_details if run.run_details else None) or []
        reports = [task for task in tasks if task.display_name == REPORT]
        return next((said for one in reports if (said := self._said(one, tasks, wait_in_log))), None)


def _pods(task: Any, by_id: Mapping[str, Any]) -> Iterator[str]:
    """The pods of a step, in order: its own nodes and those inside them, and none of what comes after it."""
    yield task.pod_name or task.task_id
    for child in task.child_tasks or []:
        inner = by_id.get(child.task_id)
        if inner is not None and INSIDE.fullmatch(inner.display_name or ""):
            yield from _pods(inner, by_id)
        elif child.pod_name and inner is None:
            yield child.pod_name


def words(name: str, *, failed: bool = False) -> str | None:
    """What a person calls the step behind a node's name; None for a node that is no step.

    failed: a driver that failed counts as its step, which then never began.
    """
    if name in WHOLE:
        return WHOLE[name]
    found = STEP.fullmatch(name)
    if found is None or (found["driver"] and not failed):
        return None
    step = re.sub(r"^(train|recover-\d+)-", r"\1.", found["step"])
    said, stage = label(f"{found['stage']}.{step}"), WHOLE.get(found["stage"], found["stage"])
    return f"{stage}: {said}" + (" (could not be started)" if found["driver"] else "")


def watch(
    run_id: str,
    endpoint: KubeflowApi,
    *,
    every_s: float = 10.0,
    tell: Callable[[TaskChange], None] = lambda change: None,
) -> RunEnd:
    """Follow a run to its end. An answer that fails is asked for again. Raises ClusterError."""
    watcher, failed = RemoteWatcher(run_id, lambda pod: endpoint.pod_log(run_id, pod)), 0
    while True:
        try:
            with endpoint.connect() as client:
                run = client.get_run(run_id)
                link = endpoint.link(client, f"runs/details/{run_id}")
            failed = 0
        except ClusterError as error:
            failed += 1
            if failed == PATIENCE or " 404 " in str(error) or "refuses" in str(error):
                raise
            time.sleep(every_s)
            continue
        for change in watcher.changes(run):
            tell(change)
        if run.state in ENDED:
            why = run.error.message if run.error else None
            return RunEnd(run_id, run.state, why, link, watcher.waiting(run))
        time.sleep(every_s)
