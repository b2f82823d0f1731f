"""Runs one job to its end: creates it or finds it again, watches that it gets on, and cleans up after it.

The job outlives a launcher that is killed: the next try finds it by its name and waits on.
It does not outlive one that gets SIGTERM, nor its own end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kascade.cluster.failures import JobFailed, first_failure, waiting_pods
from kascade.cluster.jobs import JobKind, JobState
from kascade.termination import termination_as_exit

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds. deadline_s: from when the job was first seen running; None: for ever.

    silence_s: how long a running job may show no progress. outage_s: how long the API may not answer.
    pods_s: after so much silence the log says what pods wait for.
    """

    silence_s: float
    deadline_s: float | None
    poll_s: float = 10.0
    gone_s: float = 120.0
    outage_s: float = 600.0
    pods_s: float = 60.0


class Launcher:
    """Jobs of one namespace, through a `kubernetes.client.ApiClient`."""

    def __init__(self, client: Any, namespace: str) -> None:
        from kubernetes.client import CoreV1Api, CustomObjectsApi

        self.namespace = namespace
        self._custom, self._core = CustomObjectsApi(client), CoreV1Api(client)

    def run(
        self,
        kind: JobKind,
        manifest: Mapping[str, Any],
        heartbeat: Callable[[], object],
        patience: Patience,
    ) -> None:
        """Run `manifest` to its end. Raises JobFailed when it did not succeed, with the first failure's log;
        UserError when the cluster knows no such jobs.

        heartbeat: anything that changes as long as the work gets on.
        """
        name = manifest["metadata"]["name"]
        with termination_as_exit():
            try:
                self._create_or_join(kind, manifest, patience)
                state, job = self._wait(kind, name, heartbeat, patience)
                if state.phase == "failed":
                    raise JobFailed(self._explain(kind, job, state))
            except (JobFailed, SystemExit, KeyboardInterrupt):
                self._delete(kind, name)
                raise
            self._delete(kind, name)

    def _create_or_join(self, kind: JobKind, manifest: Mapping[str, Any], patience: Patience) -> None:
        from kubernetes.client.exceptions import ApiException

        name = manifest["metadata"]["name"]
        try:
            self._custom.create_namespaced_custom_object(*self._at(kind), dict(manifest))
            log.info("created %s %s/%s", kind.kind, self.namespace, name)
            return
        except ApiException as error:
            if error.status == 404 and "page not found" in str(error.body):
                raise kind.not_known() from error
            if error.status != 409:
                raise JobFailed(f"{kind.kind} {name} was refused: {error.reason}: {error.body}") from error
        found = self._get(kind, name)
        if found is None:
            self._create_or_join(kind, manifest, patience)
            return
        if "deletionTimestamp" in found["metadata"] or kind.state(found).phase == "failed":
            log.info("%s %s is left over from an earlier try; it makes way", kind.kind, name)
            self._delete(kind, name)
            self._wait_until_gone(kind, name, patience)
            self._create_or_join(kind, manifest, patience)
            return
        log.info("%s %s/%s is there already: waiting for it", kind.kind, self.namespace, name)
        owners = {"metadata": {"ownerReferences": manifest["metadata"].get("ownerReferences", [])}}
        self._custom.patch_namespaced_custom_object(*self._at(kind), name, owners)

    def _wait(
        self, kind: JobKind, name: str, heartbeat: Callable[[], object], patience: Patience
    ) -> tuple[JobState, Mapping[str, Any]]:
        """Wait for the job's end. Queued time counts for nothing."""
        begun: float | None = None
        beat, changed = heartbeat(), time.monotonic()
        last, told = JobState("running", "unseen"), ""
        while True:
            job = self._get(kind, name, patience)
            if job is None:
                raise JobFailed(f"{kind.kind} {name} was deleted by someone else")
            state = kind.state(job)
            if state != last:
                log.info("%s %s: %s %s %s", kind.kind, name, state.phase, state.reason, state.message)
            if state.phase in ("succeeded", "failed"):
                return state, job
            now, current = time.monotonic(), heartbeat()
            if current != beat or state.phase == "queued" or state.phase != last.phase:
                beat, changed = current, now
            if state.phase == "running":
                begun = begun if begun is not None else now
                told = self._tell_waiting(kind, job, now - changed, patience, told)
                self._check_time(f"{kind.kind} {name}", now - changed, now - begun, patience, told)
            last = state
            time.sleep(patience.poll_s)

    def _tell_waiting(
        self, kind: JobKind, job: Mapping[str, Any], silent_s: float, patience: Patience, told: str
    ) -> str:
        """What pods of a silent job wait for; logged when it is not what was `told` before."""
        if silent_s < patience.pods_s:
            return ""
        waiting = waiting_pods(self._core, self.namespace, kind, job)
        if waiting not in ("", told):
            log.warning("%s %s: %s", kind.kind, job["metadata"]["name"], waiting)
        return waiting

    def _check_time(self, job: str, silent_s: float, run_s: float, patience: Patience, waiting: str) -> None:
        if silent_s > patience.silence_s:
            silence = f"{job} has shown no progress for {silent_s:.0f} s (silence_s)"
            raise JobFailed("\n".join(filter(None, (silence, waiting))))
        if patience.deadline_s is not None and run_s > patience.deadline_s:
            raise JobFailed(f"{job} has run for {run_s:.0f} s, longer than deadline_s allows")

    def _explain(self, kind: JobKind, job: Mapping[str, Any], state: JobState) -> str:
        name = job["metadata"]["name"]
        words = ": ".join(filter(None, (state.reason, state.message))) or "without a reason"
        failure = first_failure(self._core, self.namespace, kind, job)
        return "\n".join(filter(None, (f"{kind.kind} {name} failed: {words}", failure)))

    def _get(self, kind: JobKind, name: str, patience: Patience | None = None) -> dict[str, Any] | None:
        """The job, None when there is none. An API that does not answer is asked again for a while."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        outage_s = patience.outage_s if patience else 0.0
        deadline = time.monotonic() + outage_s
        while True:
            try:
                found: dict[str, Any] = self._custom.get_namespaced_custom_object(*self._at(kind), name)
                return found
            except ApiException as error:
                if error.status == 404:
                    return None
                if error.status < 500 and error.status != 429:
                    raise
                problem: Exception = error
            except HTTPError as error:
                problem = error
            if time.monotonic() > deadline:
                raise problem
            log.warning("the API does not answer, trying again: %s", problem)
            time.sleep(patience.poll_s if patience else 0)

    def _delete(self, kind: JobKind, name: str) -> None:
        from kubernetes.client import V1DeleteOptions
        from kubernetes.client.exceptions import ApiException

        options = V1DeleteOptions(propagation_policy="Foreground")
        try:
            self._custom.delete_namespaced_custom_object(*self._at(kind), name, body=options)
        except ApiException as error:
            if error.status != 404:
                log.warning("%s %s could not be deleted: %s", kind.kind, name, error.reason)

    def _wait_until_gone(self, kind: JobKind, name: str, patience: Patience) -> None:
        deadline = time.monotonic() + patience.gone_s
        while self._get(kind, name, patience) is not None:
            if time.monotonic() > deadline:
                raise JobFailed(f"{kind.kind} {name} of an earlier try does not go away")
            time.sleep(min(patience.poll_s, 1.0))

    def _at(self, kind: JobKind) -> tuple[str, str, str, str]:
        return kind.group, kind.version, self.namespace, kind.plural
