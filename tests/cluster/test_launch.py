"""The launcher against a stub of the Kubernetes API: creating, joining, waiting, failing, cleaning up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stub_api import StubApi

from kascade.cluster.failures import JobFailed
from kascade.cluster.jobs import RAYJOB, TRAINJOB, JobKind, rayjob_state, trainjob_state
from kascade.cluster.launch import Launcher, Patience
from kascade.cluster.versions import trainjob_api
from kascade.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
QUICK = Patience(silence_s=60, deadline_s=None, poll_s=0.01, gone_s=2, outage_s=2)
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "step", "uid": "u-1"}


@pytest.fixture
def api() -> Iterator[StubApi]:
    stub = StubApi()
    yield stub
    stub.close()


def manifest(kind: JobKind = TRAINJOB, uid: str = "u-1") -> dict[str, Any]:
    metadata = {"name": "kc-sft-train-0", "ownerReferences": [{**OWNER, "uid": uid}]}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": {}}


def condition(kind: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}


def ends_with(status: dict[str, Any], after: int = 3) -> Callable[[dict[str, Any], int], None]:
    def on_get(resource: dict[str, Any], times: int) -> None:
        if times >= after:
            resource["status"] = status

    return on_get


def run(api: StubApi, kind: JobKind = TRAINJOB, patience: Patience = QUICK, beat: Any = None) -> None:
    Launcher(api.client(), "team").run(kind, manifest(kind), beat or (lambda: 0), patience)


def test_a_job_is_created_watched_and_removed(api: StubApi) -> None:
    api.on_get = ends_with(condition("Complete"))
    run(api)
    assert api.verbs() == ["POST", "DELETE"] and api.resources == {}
    assert api.requests[0][1] == "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs"


def test_a_second_try_joins_the_first_and_becomes_its_owner(api: StubApi) -> None:
    path = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs/kc-sft-train-0"
    api.resources[path] = manifest(uid="the pod of the first try")
    owners: list[str] = []

    def on_get(resource: dict[str, Any], times: int) -> None:
        owners.append(resource["metadata"]["ownerReferences"][0]["uid"])
        ends_with(condition("Complete"), after=4)(resource, times)

    api.on_get = on_get
    run(api)
    assert api.verbs() == ["POST", "PATCH", "DELETE"]
    assert owners[-1] == "u-1"


def test_a_failed_job_of_an_earlier_try_makes_way(api: StubApi) -> None:
    path = "/apis/ray.io/v1/namespaces/team/rayjobs/kc-sft-train-0"
    api.resources[path] = manifest(RAYJOB) | {"status": {"jobDeploymentStatus": "Failed"}}
    api.on_get = ends_with({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, after=5)
    run(api, RAYJOB)
    assert api.verbs() == ["POST", "DELETE", "POST", "DELETE"]


def test_a_job_that_ended_while_nobody_watched_is_not_run_again(api: StubApi) -> None:
    path = "/apis/ray.io/v1/namespaces/team/rayjobs/kc-sft-train-0"
    done = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    api.resources[path] = manifest(RAYJOB) | {"status": done}
    run(api, RAYJOB)
    assert api.verbs() == ["POST", "PATCH", "DELETE"] and api.resources == {}


def test_a_job_that_goes_between_two_questions_is_made_anew(api: StubApi) -> None:
    path = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs/kc-sft-train-0"
    api.resources[path] = manifest()
    plain, refused = api.answer, []

    def answer(verb: str, asked: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        found = plain(verb, asked, query, body)
        if found[0] == 409:
            refused.append(asked)
            api.resources.clear()
        return found

    api.answer = answer  # type: ignore[method-assign]
    api.on_get = ends_with(condition("Complete"), after=2)
    run(api)
    assert len(refused) == 1 and api.verbs() == ["POST", "POST", "DELETE"]


def pod(name: str, rank: str, code: int, finished: str) -> dict[str, Any]:
    ended = {"exitCode": code, "reason": "OOMKilled" if code == 137 else "Error", "finishedAt": finished}
    labels = {
        "jobset.sigs.k8s.io/jobset-name": "kc-sft-train-0",
        "batch.kubernetes.io/job-completion-index": rank,
    }
    status = {
        "name": "node",
        "state": {"terminated": ended},
        "image": "i",
        "imageID": "i",
        "ready": False,
        "restartCount": 0,
    }
    return {"metadata": {"name": name, "labels": labels}, "status": {"containerStatuses": [status]}}


def test_the_error_holds_the_log_of_the_node_that_failed_first(api: StubApi) -> None:
    api.pods = [
        pod("node-0", "0", 1, "2026-01-01T00:00:09Z"),
        pod("node-1", "1", 137, "2026-01-01T00:00:05Z"),
        pod("node-2", "2", 0, "2026-01-01T00:00:01Z"),
    ]
    api.logs = {"node-0": "NCCL: lost a peer", "node-1": "allocating 900 GB"}
    api.on_get = ends_with(condition("Failed", "JobsFailed", "one of its jobs failed"))
    with pytest.raises(JobFailed) as caught:
        run(api)
    told = str(caught.value)
    assert "JobsFailed: one of its jobs failed" in told
    assert "node 1, pod node-1 ended with code 137 (OOMKilled)" in told and "allocating 900 GB" in told
    assert "NCCL" not in told
    assert api.resources == {}


def test_of_a_rayjob_its_clusters_and_its_submitters_pods_are_looked_at(api: StubApi) -> None:
    submitter, worker = (pod(name, "", 1, f"2026-01-01T00:00:0{at}Z") for name, at in (("s", 9), ("w", 5)))
    submitter["metadata"]["labels"] = {"job-name": "kc-sft-train-0"}
    worker["metadata"]["labels"] = {"ray.io/cluster": "kc-raycluster", "ray.io/node-type": "worker"}
    api.pods, api.logs = [submitter, worker], {"s": "job failed", "w": "CUDA error: device lost"}
    status = {"jobDeploymentStatus": "Complete", "jobStatus": "FAILED", "reason": "AppFailed"}
    api.on_get = ends_with({**status, "rayClusterName": "kc-raycluster"})
    with pytest.raises(JobFailed, match=r"AppFailed(.|\n)*node worker, pod w(.|\n)*device lost"):
        run(api, RAYJOB)


def test_an_api_that_is_away_for_a_while_is_waited_for(api: StubApi) -> None:
    def on_get(resource: dict[str, Any], times: int) -> None:
        if times == 2:
            api.outages = 3
        ends_with(condition("Complete"), after=4)(resource, times)

    api.on_get = on_get
    run(api)
    assert api.verbs() == ["POST", "DELETE"]


def test_silence_ends_a_job_and_a_heartbeat_keeps_it(api: StubApi) -> None:
    silent = Patience(silence_s=0.1, deadline_s=None, poll_s=0.01)
    with pytest.raises(JobFailed, match="no progress"):
        run(api, patience=silent)
    assert api.resources == {}
    api.on_get = ends_with(condition("Complete"), after=40)
    run(api, patience=silent, beat=time.monotonic)


def waiting_pod(name: str, **status: Any) -> dict[str, Any]:
    labels = {"jobset.sigs.k8s.io/jobset-name": "kc-sft-train-0"}
    return {"metadata": {"name": name, "labels": labels}, "status": status}


def test_a_job_that_does_not_begin_says_what_its_pods_wait_for(
    api: StubApi, caplog: pytest.LogCaptureFixture
) -> None:
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    placed = {"type": "PodScheduled", "status": "True"}
    container = {"name": "node", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    states = [
        {"waiting": {"reason": "ImagePullBackOff", "message": "kascade:9 is not there"}},
        {"waiting": {"reason": "ContainerCreating"}},
    ]
    api.pods = [
        waiting_pod("node-0", conditions=[unplaced]),
        *(
            waiting_pod(f"node-{n}", conditions=[placed], containerStatuses=[{**container, "state": state}])
            for n, state in enumerate(states, 1)
        ),
    ]
    patience = Patience(silence_s=0.2, deadline_s=None, poll_s=0.02, pods_s=0.05)
    with pytest.raises(JobFailed) as caught:
        run(api, patience=patience)
    assert "no progress" in str(caught.value)
    assert f"pod node-0 waits: Unschedulable: {message}" in str(caught.value)
    assert "pod node-1 waits: ImagePullBackOff: kascade:9 is not there" in str(caught.value)
    assert "node-2" not in str(caught.value)
    assert len([one for one in caplog.records if "Unschedulable" in one.getMessage()]) == 1


def test_queued_time_counts_for_nothing(api: StubApi) -> None:
    def on_get(resource: dict[str, Any], times: int) -> None:
        resource["status"] = condition("Complete") if times > 40 else condition("Suspended")

    api.on_get = on_get
    run(api, patience=Patience(silence_s=0.1, deadline_s=0.1, poll_s=0.01))


def test_a_deadline_ends_a_job_that_gets_on(api: StubApi) -> None:
    with pytest.raises(JobFailed, match="deadline_s"):
        run(api, patience=Patience(60, deadline_s=0.1, poll_s=0.01), beat=time.monotonic)
    assert api.resources == {}


def test_a_job_deleted_by_someone_else_is_not_waited_for(api: StubApi) -> None:
    api.on_get = lambda resource, times: api.resources.clear() if times == 2 else None
    with pytest.raises(JobFailed, match="deleted by someone else"):
        run(api)


def test_what_the_api_refuses_is_told(api: StubApi) -> None:
    api.answer = lambda verb, *rest: (422, {"message": "spec.x: unknown"})  # type: ignore[method-assign]
    with pytest.raises(JobFailed, match="unknown"):
        run(api)


def test_a_cluster_without_the_operator_is_told_apart_from_one_without_the_namespace(api: StubApi) -> None:
    api.answer = lambda verb, *rest: (404, "404 page not found\n")  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"knows no RayJob(.|\n)*install KubeRay"):
        run(api, RAYJOB)
    missing = {"kind": "Status", "message": 'namespaces "team" not found'}
    api.answer = lambda verb, *rest: (404, missing)  # type: ignore[method-assign]
    with pytest.raises(JobFailed, match=r'namespaces ."team." not found'):
        run(api, RAYJOB)


DRIVER = """
import sys; sys.path[:0] = sys.argv[2:]
from dataclasses import replace
from kubernetes.client import ApiClient, Configuration
from test_launch import QUICK, manifest
from kascade.cluster.jobs import TRAINJOB
from kascade.cluster.launch import Launcher
configuration = Configuration(); configuration.host = sys.argv[1]
Launcher(ApiClient(configuration), "team").run(TRAINJOB, manifest(), lambda: 0, replace(QUICK, poll_s=5.0))
"""


@pytest.mark.parametrize(("number", "left"), [(signal.SIGTERM, 0), (signal.SIGKILL, 1)])
def test_a_launcher_told_to_stop_takes_its_job_along(api: StubApi, number: int, left: int) -> None:
    """One that is killed leaves the job, for the next try to join."""
    paths = [str(ROOT), str(Path(__file__).parent)]
    launcher = subprocess.Popen([sys.executable, "-c", DRIVER, api.url, *paths], env=os.environ)
    try:
        deadline = time.monotonic() + 60
        while len(api.requests) < 2:
            assert launcher.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        launcher.send_signal(number)
        if number == signal.SIGTERM:  # Kubeflow's launcher dies at once, and the pod soon after
            deadline = time.monotonic() + 2
            while api.resources and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not api.resources
        assert launcher.wait(30) == (143 if number == signal.SIGTERM else -9)
    finally:
        launcher.kill()
    assert len(api.resources) == left


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        ({}, "running"),
        ({"jobDeploymentStatus": "Initializing"}, "running"),
        ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "running"),
        ({"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"}, "running"),
        ({"jobDeploymentStatus": "Suspended"}, "queued"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "succeeded"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "FAILED"}, "failed"),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "failed"),
        ({"jobDeploymentStatus": "Complete"}, "failed"),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, "failed"),
        ({"jobDeploymentStatus": "ValidationFailed"}, "failed"),
    ],
)
def test_complete_alone_is_no_success(status: dict[str, str], phase: str) -> None:
    assert rayjob_state({"status": status}).phase == phase


def test_states_of_a_trainjob() -> None:
    assert trainjob_state({}).phase == "running"
    assert trainjob_state({"spec": {"suspend": True}}).phase == "queued"
    assert trainjob_state({"status": condition("Complete")}).phase == "succeeded"
    failed = trainjob_state({"status": condition("Failed", "DeadlineExceeded", "too long")})
    assert (failed.phase, failed.reason, failed.message) == ("failed", "DeadlineExceeded", "too long")
    resumed = {"conditions": [{"type": "Suspended", "status": "False"}]}
    assert trainjob_state({"status": resumed}).phase == "running"


def description(*fields: str) -> dict[str, Any]:
    spec = {"properties": {field: {} for field in fields}}
    schema = {"properties": {"spec": spec}}
    return {"components": {"schemas": {"org.kubeflow.trainer.v1alpha1.TrainJob": schema}}}


@pytest.mark.parametrize(
    ("fields", "patches", "deadline"),
    [
        (["podSpecOverrides", "suspend"], "podSpecOverrides", False),
        (["podTemplateOverrides"], "podTemplateOverrides", False),
        (["runtimePatches", "activeDeadlineSeconds"], "runtimePatches", True),
    ],
)
def test_the_version_of_trainer_is_read_from_the_api(
    api: StubApi, fields: list[str], patches: str, deadline: bool
) -> None:
    api.description = {TRAINJOB.api_version: description(*fields)}
    found = trainjob_api(api.client())
    assert (found.patches, found.deadline) == (patches, deadline)


def test_a_cluster_without_trainer_or_with_a_strange_one(api: StubApi) -> None:
    with pytest.raises(UserError, match="knows no TrainJob"):
        trainjob_api(api.client())
    api.description = {TRAINJOB.api_version: description("somethingNew")}
    with pytest.raises(UserError, match="runtimePatches"):
        trainjob_api(api.client())


def test_json_of_a_manifest_is_what_is_sent(api: StubApi) -> None:
    api.on_get = ends_with(condition("Complete"), after=1)
    sent: list[str] = []
    plain = api.answer
    api.answer = lambda verb, path, query, body: (  # type: ignore[method-assign]
        sent.append(json.dumps(body)) if verb == "POST" else None,
        plain(verb, path, query, body),
    )[1]
    run(api)
    assert sent == [json.dumps(manifest())]
