"""Kinds of jobs: where their API is, what their status means, which pods are theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kascade.errors import Fault, UserError

Spec = dict[str, Any]
Phase = Literal["queued", "running", "succeeded", "failed"]


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job stands. queued: it waits for admission, or is suspended; reason, message: in its words."""

    phase: Phase
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class JobKind:
    """A custom resource that runs pods to an end.

    operator: who runs such jobs, by its name. state: reads the whole resource. pods: label selectors of its
    pods, given the resource.
    """

    kind: str
    group: str
    version: str
    plural: str
    operator: str
    state: Callable[[Mapping[str, Any]], JobState]
    pods: Callable[[Mapping[str, Any]], list[str]]

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}"

    def not_known(self) -> UserError:
        """The error of a cluster whose API has no such kind."""
        remedy = f"install {self.operator}, or give these stages one node, or `runs_as: inline`"
        return UserError(Fault("cluster", f"this cluster knows no {self.kind}", remedy=remedy))


def trainjob_state(job: Mapping[str, Any]) -> JobState:
    """Of a Kubeflow Trainer TrainJob, from its conditions."""
    conditions = {c["type"]: c for c in job.get("status", {}).get("conditions", []) if c["status"] == "True"}
    for kind, phase in _TRAINJOB_ENDS.items():
        if kind in conditions:
            condition = conditions[kind]
            return JobState(phase, condition.get("reason", ""), condition.get("message", ""))
    waiting = "Suspended" in conditions or job.get("spec", {}).get("suspend") is True
    return JobState("queued" if waiting else "running")


_TRAINJOB_ENDS: Mapping[str, Phase] = {"Failed": "failed", "Complete": "succeeded"}


def rayjob_state(job: Mapping[str, Any]) -> JobState:
    """Of a KubeRay RayJob. `Complete` says that Ray is done with it; only the job's own status, how."""
    status = job.get("status", {})
    deployment, own = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
    words = status.get("reason", "") or own, status.get("message", "")
    if deployment in ("Failed", "ValidationFailed"):
        return JobState("failed", words[0] or deployment, words[1])
    if deployment == "Complete":
        return JobState("succeeded" if own == "SUCCEEDED" else "failed", *words)
    waiting = deployment in ("Suspended", "Suspending") or job.get("spec", {}).get("suspend") is True
    return JobState("queued" if waiting else "running")


def _trainjob_pods(job: Mapping[str, Any]) -> list[str]:
    return [f"jobset.sigs.k8s.io/jobset-name={job['metadata']['name']}"]


def _rayjob_pods(job: Mapping[str, Any]) -> list[str]:
    submitter = f"job-name={job['metadata']['name']}"  # it shows what the entrypoint wrote
    cluster = job.get("status", {}).get("rayClusterName")
    return [submitter, f"ray.io/cluster={cluster}"] if cluster else [submitter]


TRAINJOB = JobKind(
    "TrainJob",
    "trainer.kubeflow.org",
    "v1alpha1",
    "trainjobs",
    "Kubeflow Trainer",
    trainjob_state,
    _trainjob_pods,
)
RAYJOB = JobKind("RayJob", "ray.io", "v1", "rayjobs", "KubeRay", rayjob_state, _rayjob_pods)
