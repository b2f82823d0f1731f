"""The manifests on a real API server, what its tokens may do, and a launcher with the rights it has there.

Needs the cluster tool. There are no operators on that cluster: where one is wanted, the test does its part.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_objects import LOOSE, SECRETS, definition
from cr_schemas import RAYJOB as RAYJOB_SCHEMA
from engine import ROOT

from kascade.cluster.failures import JobFailed
from kascade.cluster.jobs import RAYJOB
from kascade.cluster.launch import Launcher, Patience

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
PATIENCE = Patience(silence_s=60, deadline_s=120, poll_s=0.2, gone_s=30)


@pytest.fixture(scope="module")
def client_of(kubeconfig: str, applied: str) -> Any:
    """API clients with the token of one service account."""
    from kubernetes import client, config

    def made(account: str) -> Any:
        admin = client.CoreV1Api(config.new_client_from_config(kubeconfig))
        request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
        token = admin.create_namespaced_service_account_token(account, applied, request).status.token
        configuration = client.Configuration()
        configuration.host = admin.api_client.configuration.host
        configuration.verify_ssl = False
        configuration.api_key = {"authorization": f"Bearer {token}"}
        return client.ApiClient(configuration)

    return made


def test_applying_again_changes_nothing(kubectl: Any, applied: str) -> None:
    """(What `apply` says of it is no guide: it calls a list that the server filled with defaults changed.)"""
    overlay = str(ROOT / "manifests" / "overlays" / "single-node")

    def wanted() -> list[dict[str, Any]]:
        items = json.loads(kubectl("get", "-k", overlay, "-o", "json").stdout)["items"]
        for item in items:
            item.pop("status", None)
            for changing in ("resourceVersion", "managedFields"):
                item["metadata"].pop(changing, None)
        return list(items)

    before = wanted()
    kubectl("apply", "-k", overlay)
    assert before and wanted() == before


def allowed(client: Any, namespace: str, verb: str, group: str, resource: str) -> bool:
    """What the API server says that this client's own token may do."""
    from kubernetes.client import (
        AuthorizationV1Api,
        V1ResourceAttributes,
        V1SelfSubjectAccessReview,
        V1SelfSubjectAccessReviewSpec,
    )

    kind, _, part = resource.partition("/")
    asked = V1ResourceAttributes(
        namespace=namespace, verb=verb, group=group, resource=kind, subresource=part or None
    )
    review = V1SelfSubjectAccessReview(spec=V1SelfSubjectAccessReviewSpec(resource_attributes=asked))
    return bool(AuthorizationV1Api(client).create_self_subject_access_review(review).status.allowed)


@pytest.mark.parametrize(
    ("right", "may"),
    [
        *((f"{verb} ray.io rayjobs kascade", True) for verb in ("create", "get", "patch", "delete")),
        *((f"{verb} trainer.kubeflow.org trainjobs kascade", True) for verb in ("create", "delete")),
        ("list core pods kascade", True),
        ("get core pods/log kascade", True),
        ("get core secrets kascade", False),
        ("create core pods kascade", False),
        ("create core pods/exec kascade", False),
        ("create rbac.authorization.k8s.io rolebindings kascade", False),
        ("deletecollection ray.io rayjobs kascade", False),
        ("create ray.io rayjobs default", False),
    ],
)
def test_what_the_launchers_token_may_do(right: str, may: bool, client_of: Any) -> None:
    verb, group, resource, namespace = right.replace(" core ", "  ").split(" ")
    assert allowed(client_of("pipeline-runner"), namespace, verb, group, resource) is may


def test_a_jobs_own_token_may_do_nothing(client_of: Any) -> None:
    client = client_of("kascade-runner")
    for resource in ("pods", "secrets", "pods/log"):
        assert not allowed(client, "kascade", "get", "", resource)
    assert not allowed(client, "kascade", "create", "ray.io", "rayjobs")


def test_a_refusal_is_told(client_of: Any) -> None:
    manifest = {"apiVersion": RAYJOB.api_version, "kind": "RayJob", "metadata": {"name": "no"}, "spec": {}}
    with pytest.raises(JobFailed, match="Forbidden"):
        Launcher(client_of("kascade-runner"), "kascade").run(RAYJOB, manifest, lambda: 0, PATIENCE)


@pytest.fixture
def operator(kubeconfig: str, applied: str) -> Iterator[Any]:
    """Says of every RayJob that comes what the test wants said: the operator's part."""
    from kubernetes import client, config

    custom = client.CustomObjectsApi(config.new_client_from_config(kubeconfig))
    place = (RAYJOB.group, RAYJOB.version, applied, RAYJOB.plural)
    wanted: dict[str, Any] = {}
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.3):
            for job in custom.list_namespaced_custom_object(*place)["items"]:
                if wanted and "status" not in job:
                    name = job["metadata"]["name"]
                    custom.patch_namespaced_custom_object_status(*place, name, {"status": wanted})

    thread = threading.Thread(target=work)
    thread.start()
    yield wanted
    stop.set()
    thread.join()


def test_a_launcher_with_its_token_runs_a_job_to_its_end(client_of: Any, operator: Any) -> None:
    from test_jobs import rayjob

    manifest = rayjob()
    del manifest["metadata"][
        "ownerReferences"
    ]  # of a pod that is not there: the cluster would collect the job
    operator |= {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    client = client_of("pipeline-runner")
    Launcher(client, "kascade").run(RAYJOB, manifest, time.monotonic, PATIENCE)
    operator |= {"jobDeploymentStatus": "Complete", "jobStatus": "FAILED", "message": "device lost"}
    with pytest.raises(JobFailed, match="device lost"):
        Launcher(client, "kascade").run(RAYJOB, manifest, time.monotonic, PATIENCE)


def test_a_stricter_schema_takes_the_same_job(kubectl: Any, applied: str) -> None:
    """The API server itself checks a RayJob of ours against the structural form of the schema."""
    from test_jobs import rayjob

    group = definition(RAYJOB, _structural(RAYJOB_SCHEMA))
    kubectl("apply", "-f", "-", given=json.dumps(group))
    time.sleep(2)  # until the server serves it
    good = rayjob()
    kubectl("-n", applied, "apply", "--dry-run=server", "-f", "-", given=json.dumps(good))
    good["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] = "two"
    bad = kubectl("-n", applied, "apply", "--dry-run=server", "-f", "-", given=json.dumps(good), check=False)
    assert bad.returncode != 0 and "replicas" in bad.stderr
    kubectl("apply", "-f", "-", given=json.dumps(definition(RAYJOB, LOOSE)))


def _structural(schema: Any) -> Any:
    """A schema as a CRD may hold it: no constants, no closed objects, metadata left to the server."""
    if isinstance(schema, list):
        return [_structural(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "const" in schema:
        return {"type": "string"}
    if "enum" in schema:
        return {"type": "string", "enum": schema["enum"]}
    kept = {key: _structural(value) for key, value in schema.items() if key != "additionalProperties"}
    if isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = _structural(schema["additionalProperties"])
    if kept == {"type": "object"}:
        return LOOSE
    for key in ("properties",):
        if isinstance(kept.get(key), dict) and "metadata" in kept[key]:
            kept[key]["metadata"] = {"type": "object"}
    return {key: value for key, value in kept.items() if value not in ({}, [])}


def test_the_docs_name_every_secret() -> None:
    documented = Path(ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    for name, keys in SECRETS.items():
        assert f"secret generic {name}" in documented
        assert all(f"--from-literal={key}=" in documented for key in keys)
