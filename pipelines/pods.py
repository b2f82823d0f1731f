"""A step's pod: the recipe's `cluster` part, put on a task as far as Kubeflow Pipelines can hold it.

Resources, image and retries go into the pipeline; node selection, tolerations, secrets, volumes and time
limits into its Kubernetes part. None of it matters to `kfp.local`, save retries.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from kfp import kubernetes

from components.image import IMAGE
from kascade.recipe.cluster import Cluster, NodeTerm, Placement, SecretVariable, Volume
from kascade.recipe.pod_forms import LONGEST_S
from kascade.recipe.schema import Recipe

Component = Callable[..., Any]
Task = Any  # a kfp PipelineTask
SHARED_MEMORY = "/dev/shm"
UNLIMITED_S = 365 * 24 * 3600  # stands for "no time limit" where Argo wants a number
# Of the step's own pod, so that a job that it launches can be owned by it and ends with it.
POD_FIELDS = {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid", "POD_NAMESPACE": "metadata.namespace"}


def variant(component: Component, label: str | None) -> Component:
    """`component` under a name of its own.

    kfp keeps one executor a name and may swap those that differ, so steps with different pods need
    different names.
    """
    if label is None:
        return component
    clone: Any = copy.copy(component)
    clone.component_spec = copy.deepcopy(clone.component_spec)
    clone.component_spec.name = f"{clone.component_spec.name}-{label}"
    return clone  # type: ignore[no-any-return]


def place(task: Task, cluster: Cluster, placement: Placement, *, launches: bool = False) -> Task:
    """Give a task its pod. launches: its settings are for the job that it launches; its own pod is small."""
    if image := placement.image or cluster.image:
        task.set_container_image(image)
    _resources(task, placement)
    _nodes(task, placement)
    for volume in volumes(cluster, placement):
        kubernetes.mount_pvc(task, volume.claim, volume.path, sub_path=volume.sub_path)
    _secrets(task, secrets(cluster, placement))
    kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))
    if placement.timeout_s is not None:
        kubernetes.set_timeout(task, placement.timeout_s)
    if launches:
        for variable, path in POD_FIELDS.items():
            kubernetes.use_field_path_as_env(task, variable, path)
        task.set_env_variable("KASCADE_IMAGE", placement.image or cluster.image or IMAGE)
    _retries(task, placement)
    task.set_caching_options(False)
    return task


def _retries(task: Task, placement: Placement) -> None:
    """Argo counts the window from the first try, and ends a running try with it: it holds all tries."""
    retries = placement.retries
    if not retries.count:
        return
    waits = sum(retries.backoff_s * retries.factor**number for number in range(retries.count))
    window = min((placement.timeout_s or UNLIMITED_S) * (retries.count + 1) + waits, LONGEST_S)
    task.set_retry(
        retries.count,
        backoff_duration=f"{retries.backoff_s}s",
        backoff_factor=retries.factor,
        backoff_max_duration=f"{window}s",
    )


def _resources(task: Task, placement: Placement) -> None:
    task.set_cpu_request(placement.cpu).set_cpu_limit(placement.cpu)
    task.set_memory_request(placement.memory).set_memory_limit(placement.memory)
    if placement.accelerators:
        task.set_accelerator_type(placement.accelerator).set_accelerator_limit(placement.accelerators)
    if placement.shared_memory is not None:
        kubernetes.empty_dir_mount(
            task, "shared-memory", SHARED_MEMORY, medium="Memory", size_limit=placement.shared_memory
        )


def _nodes(task: Task, placement: Placement) -> None:
    for key, value in placement.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in placement.tolerations:
        kubernetes.add_toleration(task, **toleration.model_dump(exclude_none=True))
    required = [term for term in placement.affinity if term.weight is None]
    if required:
        kubernetes.add_node_affinity(task, match_expressions=[expression(term) for term in required])
    for term in placement.affinity:
        if term.weight is not None:
            kubernetes.add_node_affinity(task, match_expressions=[expression(term)], weight=term.weight)


def expression(term: NodeTerm) -> dict[str, Any]:
    """A condition on nodes as Kubernetes has it."""
    values = {"values": list(term.values)} if term.values else {}
    return {"key": term.key, "operator": term.operator, **values}


def _secrets(task: Task, references: Iterable[SecretVariable]) -> None:
    def group(reference: SecretVariable) -> tuple[str, bool]:
        return reference.secret, reference.optional

    for (secret, optional), found in itertools.groupby(sorted(references, key=group), key=group):
        keys = {reference.key: reference.variable for reference in found}
        kubernetes.use_secret_as_env(task, secret, keys, optional=optional)


def volumes(cluster: Cluster, placement: Placement) -> tuple[Volume, ...]:
    """All that a step mounts: the runs' storage, what every pod has, what its stage adds."""
    return tuple(dict.fromkeys((cluster.storage, *cluster.volumes, *placement.volumes)))


def secrets(cluster: Cluster, placement: Placement) -> tuple[SecretVariable, ...]:
    """All secrets of a step, by reference."""
    return tuple(dict.fromkeys((*cluster.secrets, *placement.secrets)))


def labels(recipe: Recipe) -> dict[str, str | None]:
    """By stage, what tells its steps' pods from the others'; None: they have the default."""
    found: dict[str, str] = {}
    result: dict[str, str | None] = {}
    for number, stage in enumerate(recipe.stages, 1):
        placement = recipe.cluster.placement(stage.name)
        launched = recipe.cluster.shape_of(stage) != "inline"
        if placement == recipe.cluster.default and not launched:
            result[stage.name] = None
            continue
        key = f"{launched} {placement.model_dump_json()}"
        result[stage.name] = found.setdefault(key, f"{number}-{stage.name.replace('_', '-')}")
    return result
