"""A job's pods as Kubernetes wants them: the recipe's placement, and what the step's own task was given."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kascade.recipe.cluster import Cluster, NodeTerm, Placement

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Spec = dict[str, Any]
SHARED_MEMORY = "/dev/shm"
# What Pod Security `restricted` asks of a pod and of each container.
POD_SECURITY: Spec = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY: Spec = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Fragments of a pod's specification, as the Kubernetes API has them."""

    image: str
    pull_policy: str
    pull_secrets: list[Spec]
    service_account: str
    resources: Spec
    env: list[Spec]
    volumes: list[Spec]
    volume_mounts: list[Spec]
    node_selector: dict[str, str]
    tolerations: list[Spec]
    affinity: Spec
    pod_security: Spec
    container_security: Spec


def pod_settings(
    cluster: Cluster, placement: Placement, task_config: Mapping[str, Any], image: str
) -> PodSettings:
    """What a job's pods get.

    task_config: the fields of `dsl.TaskConfig`, which say what the pipeline's task was given; they win over
    the recipe, where the pipeline says nothing. image: that of the step, for a recipe that names none.
    """
    volumes, mounts = _volumes(cluster, placement)
    given_mounts: list[Spec] = list(task_config.get("volume_mounts") or [])
    paths = {mount["mountPath"] for mount in given_mounts}
    mounts = [mount for mount in mounts if mount["mountPath"] not in paths]
    used = {mount["name"] for mount in mounts}
    given_env: list[Spec] = list(task_config.get("env") or [])
    names = {variable["name"] for variable in given_env}
    return PodSettings(
        image=placement.image or cluster.image or image,
        pull_policy=cluster.image_pull_policy,
        pull_secrets=[{"name": name} for name in cluster.image_pull_secrets],
        service_account=cluster.service_account,
        resources=task_config.get("resources") or _resources(placement),
        env=[*given_env, *(v for v in _secret_env(cluster, placement) if v["name"] not in names)],
        volumes=_once([*(task_config.get("volumes") or []), *(v for v in volumes if v["name"] in used)]),
        volume_mounts=[*given_mounts, *mounts],
        node_selector=task_config.get("node_selector") or dict(placement.node_selector),
        tolerations=task_config.get("tolerations") or _tolerations(placement),
        affinity=task_config.get("affinity") or _affinity(placement.affinity),
        pod_security=dict(POD_SECURITY) if cluster.restricted else {},
        container_security=dict(CONTAINER_SECURITY) if cluster.restricted else {},
    )


def _once(volumes: Iterable[Spec]) -> list[Spec]:
    """Kubeflow names a volume after its claim, and lists a claim that is mounted twice twice."""
    return list({volume["name"]: volume for volume in volumes}.values())


def _resources(placement: Placement) -> Spec:
    amounts = {"cpu": placement.cpu, "memory": placement.memory}
    if placement.accelerators:
        amounts[placement.accelerator] = str(placement.accelerators)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _secret_env(cluster: Cluster, placement: Placement) -> list[Spec]:
    return [
        {
            "name": s.variable,
            "valueFrom": {"secretKeyRef": {"name": s.secret, "key": s.key, "optional": s.optional}},
        }
        for s in dict.fromkeys((*cluster.secrets, *placement.secrets))
    ]


def _volumes(cluster: Cluster, placement: Placement) -> tuple[list[Spec], list[Spec]]:
    volumes: list[Spec] = []
    mounts: list[Spec] = []
    wanted = dict.fromkeys((cluster.storage, *cluster.volumes, *placement.volumes))
    for number, volume in enumerate(wanted):
        name = f"kascade-{number}"
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": volume.claim}})
        sub_path = {"subPath": volume.sub_path} if volume.sub_path else {}
        mounts.append({"name": name, "mountPath": volume.path, **sub_path})
    if placement.shared_memory is not None:
        directory = {"medium": "Memory", "sizeLimit": placement.shared_memory}
        volumes.append({"name": "kascade-shm", "emptyDir": directory})
        mounts.append({"name": "kascade-shm", "mountPath": SHARED_MEMORY})
    return volumes, mounts


def _tolerations(placement: Placement) -> list[Spec]:
    named = {"toleration_seconds": "tolerationSeconds"}
    return [
        {named.get(key, key): value for key, value in toleration.model_dump(exclude_none=True).items()}
        for toleration in placement.tolerations
    ]


def _affinity(terms: Sequence[NodeTerm]) -> Spec:
    required = [_expression(term) for term in terms if term.weight is None]
    preferred = [
        {"weight": term.weight, "preference": {"matchExpressions": [_expression(term)]}}
        for term in terms
        if term.weight is not None
    ]
    node: Spec = {}
    if required:
        selector = {"nodeSelectorTerms": [{"matchExpressions": required}]}
        node["requiredDuringSchedulingIgnoredDuringExecution"] = selector
    if preferred:
        node["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
    return {"nodeAffinity": node} if node else {}


def _expression(term: NodeTerm) -> Spec:
    values = {"values": list(term.values)} if term.values else {}
    return {"key": term.key, "operator": term.operator, **values}


def without_empty(fields: Mapping[str, Any], keep: Iterable[str] = ()) -> Spec:
    """Only the fields that say something: the API server keeps what is left out at its default."""
    return {key: value for key, value in fields.items() if key in keep or value not in (None, {}, [], "")}


def pod_namespace() -> str:
    """Where this pod runs, and its jobs with it."""
    if "POD_NAMESPACE" in os.environ:
        return os.environ["POD_NAMESPACE"]
    return NAMESPACE_FILE.read_text(encoding="utf-8").strip()
