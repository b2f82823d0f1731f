"""Why a job of several pods failed or does not begin: the pod that failed first, and those that wait."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kascade.cluster.jobs import JobKind
from kascade.errors import KascadeError

log = logging.getLogger(__name__)

TAIL_LINES = 40
USUAL_WAITS = ("ContainerCreating", "PodInitializing")
RANK_LABELS = ("batch.kubernetes.io/job-completion-index", "ray.io/node-type")


class JobFailed(KascadeError):
    """A job of several nodes did not do its work; the message holds the log of the pod that failed first."""


@dataclass(frozen=True, slots=True)
class FailedPod:
    """A pod whose container ended badly. rank: its node's number, or its part in a Ray cluster."""

    name: str
    container: str
    rank: str
    exit_code: int
    reason: str
    finished: str


def first_failure(core: Any, namespace: str, kind: JobKind, job: Mapping[str, Any]) -> str:
    """What the first pod to fail says, as text for people; empty when no pod can be found.

    core: a `kubernetes.client.CoreV1Api`. The others mostly fail because the first did.
    """
    from kubernetes.client.exceptions import ApiException

    try:
        failed = sorted(_failed_pods(core, namespace, kind, job), key=lambda pod: pod.finished)
        if not failed:
            return ""
        first = failed[0]
        tail = core.read_namespaced_pod_log(
            first.name, namespace, container=first.container, tail_lines=TAIL_LINES
        )
    except ApiException as error:  # the failure itself matters more than its log
        log.warning("the logs of %s cannot be read: %s", job["metadata"]["name"], error.reason)
        return ""
    reason = f" ({first.reason})" if first.reason else ""
    where = f"node {first.rank}, pod {first.name}" if first.rank else f"pod {first.name}"
    return f"{where} ended with code {first.exit_code}{reason}; its log ends with\n{tail}"


def waiting_pods(core: Any, namespace: str, kind: JobKind, job: Mapping[str, Any]) -> str:
    """Why pods of the job do not run (no room, no image), as text for people; empty when all do."""
    from kubernetes.client.exceptions import ApiException

    try:
        waiting = [
            f"pod {pod.metadata.name} waits: {reason}"
            for pod in _pods(core, namespace, kind, job)
            for reason in _reasons_to_wait(pod)
        ]
    except ApiException as error:
        log.warning("the pods of %s cannot be listed: %s", job["metadata"]["name"], error.reason)
        return ""
    return "\n".join(waiting)


def _reasons_to_wait(pod: Any) -> Iterator[str]:
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            yield f"{condition.reason}: {condition.message}"
    for container in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
        waiting = container.state.waiting
        if waiting is not None and waiting.reason not in USUAL_WAITS:
            yield f"{waiting.reason}: {waiting.message or container.name}"


def _pods(core: Any, namespace: str, kind: JobKind, job: Mapping[str, Any]) -> Iterator[Any]:
    for selector in kind.pods(job):
        yield from core.list_namespaced_pod(namespace, label_selector=selector).items


def _failed_pods(core: Any, namespace: str, kind: JobKind, job: Mapping[str, Any]) -> Iterator[FailedPod]:
    for pod in _pods(core, namespace, kind, job):
        labels = pod.metadata.labels or {}
        rank = next((labels[label] for label in RANK_LABELS if label in labels), "")
        for container in pod.status.container_statuses or []:
            ended = container.state.terminated
            if ended is not None and ended.exit_code != 0:
                finished = ended.finished_at.isoformat() if ended.finished_at else ""
                yield FailedPod(
                    pod.metadata.name, container.name, rank, ended.exit_code, ended.reason or "", finished
                )
