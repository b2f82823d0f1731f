"""Pods as Pod Security `restricted` wants them, run on a real node: the sandbox's and those of jobs.

This Kubernetes is older than Pod Security. So the standard itself is written out here, and the node does what
it does under any version: it starts no root where the pod forbids it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from engine import BASE_IMAGE, build, docker
from test_containers import SANDBOX
from test_jobs import rayjob, trainjob

from components.image import IMAGE
from kascade.cluster.manifests import NODE

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
SMALL = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "projected", "secret"} | {
    "persistentVolumeClaim"
}
PATIENCE_S = 120


def violations(pod: dict[str, Any]) -> Iterator[str]:
    """What Pod Security `restricted` would refuse of a pod (Kubernetes 1.37, pod-security-standards)."""
    around = pod.get("securityContext", {})
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= ALLOWED_VOLUMES:
            yield f"volume {volume}"
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = {**around, **container.get("securityContext", {})}
        if own.get("runAsNonRoot") is not True or own.get("runAsUser") == 0:
            yield f"{container['name']}: root"
        if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
            yield f"{container['name']}: privileges"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{container['name']}: capabilities"
        if own.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
            yield f"{container['name']}: seccomp"


def job_pods() -> dict[str, dict[str, Any]]:
    """The pods that the operators would make of our jobs. Trainer adds ours to what its runtime has."""
    ray = rayjob()["spec"]["rayClusterSpec"]
    (patch,) = trainjob("runtimePatches")["spec"]["runtimePatches"]
    (train,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return {
        "ray-head": ray["headGroupSpec"]["template"]["spec"],
        "ray-worker": ray["workerGroupSpecs"][0]["template"]["spec"],
        NODE: train["template"]["spec"]["template"]["spec"],
    }


@pytest.mark.parametrize("kind", job_pods())
def test_the_standard_has_nothing_against_a_jobs_pod(kind: str) -> None:
    pod = job_pods()[kind]
    assert not list(violations(pod))
    del pod["securityContext"], pod["containers"][0]["securityContext"]
    assert len(list(violations(pod))) == 4  # the check can tell


def on_this_node(pod: dict[str, Any], image: str, program: str) -> dict[str, Any]:
    """A job's pod with its security and mounts, without the volumes and GPUs that this node does not have."""
    container = {**pod["containers"][0], "image": image, "imagePullPolicy": "Never", "resources": SMALL}
    container |= {"command": ["python3", "-c", program], "env": [{"name": "HOME", "value": "/tmp"}]}
    volumes = [{"name": volume["name"], "emptyDir": {}} for volume in pod["volumes"]]
    kept = {key: pod[key] for key in ("serviceAccountName", "securityContext")}
    return {**kept, "restartPolicy": "Never", "containers": [container], "volumes": volumes}


@pytest.fixture
def run_pod(kubectl: Any, applied: str) -> Iterator[Any]:
    """Starts a pod under a name and waits until its container ended, or cannot start: its state in a word."""
    names: list[str] = []

    def run(name: str, spec: dict[str, Any], labels: dict[str, str] | None = None) -> tuple[str, str]:
        metadata = {"name": name, "labels": labels or {}}
        names.append(name)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        kubectl("-n", applied, "apply", "-f", "-", given=json.dumps(pod))
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            status = json.loads(kubectl("-n", applied, "get", "pod", name, "-o", "json").stdout)["status"]
            (state,) = [one["state"] for one in status.get("containerStatuses", [])] or [{}]
            if "terminated" in state:
                return state["terminated"]["reason"], kubectl("-n", applied, "logs", name).stdout
            if "Error" in state.get("waiting", {}).get("reason", ""):
                return state["waiting"]["reason"], state["waiting"].get("message", "")
            time.sleep(0.5)
        pytest.fail(f"{name} neither ended nor failed within {PATIENCE_S} s")

    yield run
    for name in names:
        kubectl("-n", applied, "delete", "pod", name, "--now", "--ignore-not-found")


@pytest.mark.parametrize("kind", job_pods())
def test_a_jobs_pod_runs_without_root_and_writes_what_it_mounts(kind: str, run_pod: Any) -> None:
    if docker("image", "inspect", IMAGE, check=False).returncode:
        pytest.skip(f"the image {IMAGE} is not built (make test-containers): no job's pod was run")
    pod = job_pods()[kind]
    mounts = [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]
    program = (
        "import os, pathlib, kascade.cluster.worker\n"
        f"for mount in {mounts}: pathlib.Path(mount, 'x').write_text('x')\n"
        "status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(os.getuid(), 'CapEff:\\t0000000000000000' in status, 'NoNewPrivs:\\t1' in status)"
    )
    assert run_pod(f"job-{kind}", on_this_node(pod, IMAGE, program)) == ("Completed", "10001 True True\n")


def test_the_node_starts_no_root_where_a_job_forbids_it(run_pod: Any) -> None:
    """What `cluster.restricted: false` is for: an image whose user is root."""
    word, message = run_pod("job-root", on_this_node(job_pods()["ray-head"], BASE_IMAGE, "print(1)"))
    assert word == "CreateContainerConfigError" and "image will run as root" in message


def test_the_sandbox_image_runs_under_the_restricted_standard(run_pod: Any) -> None:
    build("sandbox", SANDBOX)
    program = json.dumps({"source": "print(6 * 7)"})
    container = {
        "name": "sandbox",
        "image": SANDBOX,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", f"echo '{program}' | python3 /opt/kascade/serve.py"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": SMALL,
    }
    pod = {
        "restartPolicy": "Never",
        "serviceAccountName": "kascade-runner",
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10002,
            "runAsGroup": 10002,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
    }
    assert not list(violations(pod))
    word, said = run_pod("sandbox", pod, {"kascade.dev/sandbox": "true"})
    answer = json.loads(said)
    assert word == "Completed" and answer["stdout"] == "42\n" and answer["error"] is None
