"""The custom resources of a job that spans nodes: a Kubeflow Trainer TrainJob, a KubeRay RayJob.

Sources: trainer v2.0 to v2.3, pkg/apis/trainer/v1alpha1/trainjob_types.go; kuberay (August 2026),
ray-operator/apis/ray/v1/rayjob_types.go.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kascade.cluster.jobs import RAYJOB, TRAINJOB
from kascade.cluster.pod import PodSettings, without_empty
from kascade.recipe.cluster import Cluster, Placement
from kascade.recipe.workers import Workers

Spec = dict[str, Any]
# How a TrainJob changes its runtime's pods: Trainer 2.0, 2.1, and 2.2 and later.
PatchField = Literal["podSpecOverrides", "podTemplateOverrides", "runtimePatches"]
PATCH_FIELDS: tuple[PatchField, ...] = ("runtimePatches", "podTemplateOverrides", "podSpecOverrides")
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
MANAGER = "kascade.dev/launcher"
NODE = "node"  # the runtime's replicated job, and its container


@dataclass(frozen=True, slots=True)
class TrainJobApi:
    """What the cluster's version of TrainJob has: see `kascade.cluster.versions`."""

    patches: PatchField
    deadline: bool


def _metadata(name: str, placement: Placement, labels: Mapping[str, str], owners: Sequence[Spec]) -> Spec:
    queue = {QUEUE_LABEL: placement.queue} if placement.queue else {}
    owned = {"ownerReferences": list(owners)} if owners else {}
    return {"name": name, "labels": {**labels, **queue}, **owned}


def train_job(
    name: str,
    command: Sequence[str],
    settings: PodSettings,
    *,
    cluster: Cluster,
    placement: Placement,
    api: TrainJobApi,
    labels: Mapping[str, str],
    owners: Sequence[Spec],
) -> Spec:
    """A TrainJob that runs `command` under torchrun on every node."""
    trainer = {
        "image": settings.image,
        "command": ["torchrun", *command],
        "numNodes": placement.nodes,
        "numProcPerNode": max(placement.accelerators, 1),
        "resourcesPerNode": settings.resources,
        "env": settings.env,
    }
    deadline = (
        {"activeDeadlineSeconds": placement.deadline_s} if placement.deadline_s and api.deadline else {}
    )
    return {
        "apiVersion": TRAINJOB.api_version,
        "kind": TRAINJOB.kind,
        "metadata": _metadata(name, placement, labels, owners),
        "spec": {
            "runtimeRef": {
                "apiGroup": TRAINJOB.group,
                "kind": "ClusterTrainingRuntime",
                "name": cluster.trainer_runtime,
            },
            "trainer": without_empty(trainer),
            api.patches: [_patch(settings, api.patches)],
            **deadline,
        },
    }


def _patch(settings: PodSettings, field: PatchField) -> Spec:
    """The pods of the runtime's job, in the words of one version."""
    pod = without_empty(
        {
            "serviceAccountName": settings.service_account,
            "nodeSelector": settings.node_selector,
            "tolerations": settings.tolerations,
            "affinity": settings.affinity,
            "volumes": settings.volumes,
            "imagePullSecrets": settings.pull_secrets,
            "containers": [{"name": NODE, "volumeMounts": settings.volume_mounts}],
        }
    )
    if field == "runtimePatches":  # the versions before have no words for it: there the runtime says it
        pod |= without_empty({"securityContext": settings.pod_security})
        pod["containers"][0] |= without_empty({"securityContext": settings.container_security})
        job = {"name": NODE, "template": {"spec": {"template": {"spec": pod}}}}
        runtime = {"template": {"spec": {"replicatedJobs": [job]}}}
        return {"manager": MANAGER, "trainingRuntimeSpec": runtime}
    if field == "podTemplateOverrides":
        return {"targetJobs": [{"name": NODE}], "spec": pod}
    known = {key: value for key, value in pod.items() if key not in ("affinity", "imagePullSecrets")}
    return {"targetJobs": [{"name": NODE}], **known}


def ray_job(
    name: str,
    command: Sequence[str],
    settings: PodSettings,
    *,
    cluster: Cluster,
    placement: Placement,
    workers: Workers,
    labels: Mapping[str, str],
    owners: Sequence[Spec],
) -> Spec:
    """A RayJob that runs `python COMMAND` once, on a Ray cluster of a head and the stage's nodes.

    The head is small and computes nothing; the driver, which holds the model, takes its part of a node.
    """
    spec: Spec = {
        "entrypoint": shlex.join(["python", *command]),
        "entrypointNumCpus": workers.driver_cpus,
        **({"entrypointNumGpus": workers.driver_gpus} if workers.driver_gpus else {}),
        "submissionMode": "K8sJobMode",
        "backoffLimit": 0,  # the pipeline's step has the retries, and continues from the last checkpoint
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": placement.ttl_s,
        "rayClusterSpec": _ray_cluster(settings, cluster, placement.nodes),
    }
    if placement.deadline_s is not None:
        spec["activeDeadlineSeconds"] = placement.deadline_s
    return {
        "apiVersion": RAYJOB.api_version,
        "kind": RAYJOB.kind,
        "metadata": _metadata(name, placement, labels, owners),
        "spec": spec,
    }


def _ray_cluster(settings: PodSettings, cluster: Cluster, nodes: int) -> Spec:
    """A head that computes nothing, and the nodes."""
    small = {"cpu": cluster.light.cpu, "memory": cluster.light.memory}
    return {
        "rayVersion": cluster.ray_version,
        "authOptions": {"mode": "token"},  # made by the operator; one before 1.5.1 passes over it
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0", "num-gpus": "0"},
            "template": {"spec": _ray_pod(settings, "ray-head", {"requests": small, "limits": dict(small)})},
        },
        "workerGroupSpecs": [
            {
                "groupName": "nodes",
                "replicas": nodes,
                "minReplicas": nodes,
                "maxReplicas": nodes,
                "rayStartParams": {},
                "template": {"spec": _ray_pod(settings, "ray-worker", settings.resources)},
            }
        ],
    }


def _ray_pod(settings: PodSettings, container: str, resources: Spec) -> Spec:
    main = without_empty(
        {
            "name": container,
            "image": settings.image,
            "imagePullPolicy": settings.pull_policy,
            "resources": resources,
            "env": settings.env,
            "volumeMounts": settings.volume_mounts,
            "securityContext": settings.container_security,
        }
    )
    return without_empty(
        {
            "serviceAccountName": settings.service_account,
            "securityContext": settings.pod_security,
            "containers": [main],
            "volumes": settings.volumes,
            "nodeSelector": settings.node_selector if container == "ray-worker" else {},
            "tolerations": settings.tolerations,
            "affinity": settings.affinity if container == "ray-worker" else {},
            "imagePullSecrets": settings.pull_secrets,
        }
    )
