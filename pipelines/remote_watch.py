"""A run on a cluster as a person follows it: what has changed, line by line, until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kascade.errors import ClusterError
from pipelines.remote import Endpoint

ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
QUIET = ("PENDING", "SKIPPED", "RUNTIME_STATE_UNSPECIFIED", None)
PATIENCE = 10  # looks in a row that may fail before the watch gives up; the run goes on in any case


@dataclass(frozen=True, slots=True)
class TaskChange:
    """A task that has come to a new state; seconds since it began, error: its own words."""

    name: str
    state: str
    seconds: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended."""

    run_id: str
    state: str
    error: str | None
    link: str

    @property
    def succeeded(self) -> bool:
        return self.state == "SUCCEEDED"


@dataclass(slots=True)
class RemoteWatcher:
    """Looks at one run; `changes` tells each task's new state once."""

    run_id: str
    _seen: dict[str, str] = field(default_factory=dict)

    def changes(self, run: Any) -> Iterator[TaskChange]:
        tasks = (run.run_details.task_details if run.run_details else None) or []
        for task in sorted(tasks, key=lambda one: (one.start_time or one.create_time, one.task_id)):
            driver = (task.display_name or "").endswith(("-driver", "root"))  # Kubeflow's own pods
            if driver or task.state in QUIET or self._seen.get(task.task_id) == task.state:
                continue
            self._seen[task.task_id] = task.state
            seconds = None
            if task.end_time and task.start_time and task.end_time >= task.start_time:
                seconds = (task.end_time - task.start_time).total_seconds()
            error = task.error.message if task.error else None
            yield TaskChange(task.display_name, task.state, seconds, error)


def watch(
    run_id: str,
    endpoint: Endpoint,
    *,
    every_s: float = 10.0,
    tell: Callable[[TaskChange], None] = lambda change: None,
) -> Ended:
    """Follow a run to its end. An answer that fails is asked for again. Raises ClusterError."""
    watcher, failed = RemoteWatcher(run_id), 0
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
            return Ended(run_id, run.state, run.error.message if run.error else None, link)
        time.sleep(every_s)
