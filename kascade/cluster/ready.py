"""Whether jobs of several nodes can be launched from here: asked in preflight, not hours later."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from kascade.cluster.jobs import RAYJOB, TRAINJOB, JobKind
from kascade.cluster.pod import pod_namespace
from kascade.errors import Fault
from kascade.recipe.recovering import shapes_of
from kascade.recipe.schema import Recipe

KINDS = {"trainjob": TRAINJOB, "rayjob": RAYJOB}
VERBS = ("create", "get", "patch", "delete")  # what the launcher does to its job
log = logging.getLogger(__name__)


def job_faults(recipe: Recipe) -> list[Fault]:
    """Kinds of jobs that the recipe asks for, and that the cluster does not know or this pod may not make."""
    shapes = {shape for stage in recipe.stages for shape in shapes_of(recipe, stage)} - {"inline"}
    if not shapes or "KUBERNETES_SERVICE_HOST" not in os.environ:
        return []
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException

    config.load_incluster_config()
    api = client.ApiClient()
    try:
        return [fault for shape in sorted(shapes) for fault in _faults(api, KINDS[shape])]
    except ApiException as error:  # the launcher will say what it meets
        log.warning("whether jobs can be launched could not be asked: %s", error.reason)
        return []


def _faults(api: Any, kind: JobKind) -> Iterator[Fault]:
    from kubernetes.client.exceptions import ApiException

    how = {"auth_settings": ["BearerToken"], "_preload_content": False}
    try:
        api.call_api(f"/apis/{kind.api_version}", "GET", **how)
    except ApiException as error:
        if error.status != 404:
            raise
        yield from kind.not_known().faults
        return
    denied = [verb for verb in VERBS if not _may(api, kind, verb)]
    if denied:
        what = f"this pod's service account may not {', '.join(denied)} {kind.plural} in {pod_namespace()}"
        yield Fault("cluster", what, remedy="apply the Role and RoleBinding of manifests/base there")


def _may(api: Any, kind: JobKind, verb: str) -> bool:
    from kubernetes import client

    asked = client.V1ResourceAttributes(
        namespace=pod_namespace(), verb=verb, group=kind.group, resource=kind.plural
    )
    review = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked)
    )
    answer = client.AuthorizationV1Api(api).create_self_subject_access_review(review)
    return bool(answer.status.allowed)
