"""A job's custom resource, made from recipe and task, against schemas; and a stage that learns in a job."""

from __future__ import annotations

import json
import shlex
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cr_schemas import RAYJOB as RAYJOB_SCHEMA
from cr_schemas import trainjob as trainjob_schema
from stub_api import StubApi

from kascade.cluster import place
from kascade.cluster.failures import JobFailed
from kascade.cluster.jobs import TRAINJOB
from kascade.cluster.manifests import PATCH_FIELDS, PatchField, TrainJobApi, ray_job, train_job
from kascade.cluster.place import job_name, label_value, launch_step, owner_references
from kascade.cluster.pod import PodSettings, pod_settings
from kascade.cluster.ready import job_faults
from kascade.cluster.worker import Work, main
from kascade.errors import UserError
from kascade.recipe.cluster import Cluster
from kascade.recipe.recovering import recovery_workers
from kascade.recipe.run_recipe import read_run_recipe
from kascade.recipe.schema import Recipe
from kascade.recipe.workers import Workers
from kascade.storage.files import write_json
from kascade.storage.run_folder import RunFolder

PLACED: dict[str, Any] = {
    "image_pull_secrets": ["registry"],
    "secrets": [{"secret": "hub", "key": "token", "variable": "HF_TOKEN"}],
    "default": {
        "nodes": 2,
        "accelerators": 8,
        "cpu": "32",
        "memory": "200Gi",
        "shared_memory": "64Gi",
        "node_selector": {"gpu": "h100"},
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 5}
        ],
        "affinity": [{"key": "zone", "values": ["a"]}, {"key": "fast", "operator": "Exists", "weight": 5}],
        "volumes": [{"claim": "data", "path": "/data", "sub_path": "x"}],
        "queue": "research",
        "deadline_s": 3600,
    },
}
CLUSTER = Cluster.model_validate(PLACED)
OWNERS = owner_references({"POD_NAME": "p", "POD_UID": "u"})


def settings(task_config: dict[str, Any] | None = None) -> PodSettings:
    return pod_settings(CLUSTER, CLUSTER.default, task_config or {}, "kascade:1")


def trainjob(patches: PatchField, *, deadline: bool = True) -> dict[str, Any]:
    return train_job(
        "kc-1",
        ["-m", "kascade.cluster.worker", "kc-1"],
        settings(),
        cluster=CLUSTER,
        placement=CLUSTER.default,
        api=TrainJobApi(patches, deadline),
        labels={"a": "b"},
        owners=OWNERS,
    )


def rayjob() -> dict[str, Any]:
    return ray_job(
        "kc-1",
        ["-m", "kascade.cluster.worker", "a run"],
        settings(),
        cluster=CLUSTER,
        placement=CLUSTER.default,
        labels={},
        workers=Workers(samplers=2, driver_gpus=1),
        owners=OWNERS,
    )


@pytest.mark.parametrize("patches", PATCH_FIELDS)
def test_a_trainjob_in_the_words_of_every_version(patches: PatchField) -> None:
    deadline = patches == "runtimePatches"
    job = trainjob(patches, deadline=deadline)
    jsonschema.validate(job, trainjob_schema(patches, deadline=deadline))
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert job["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert job["spec"]["trainer"]["numNodes"] == 2 and job["spec"]["trainer"]["numProcPerNode"] == 8
    patched = json.dumps(job["spec"][patches])
    for word in ("kascade-runs", "/dev/shm", '"gpu": "h100"', "tolerationSeconds", '"subPath": "x"'):
        assert word in patched, word
    assert ("nodeAffinity" in patched) == (patches != "podSpecOverrides")


def test_other_versions_schemas_refuse_it() -> None:
    for mine, theirs in (("runtimePatches", "podSpecOverrides"), ("podSpecOverrides", "runtimePatches")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(trainjob(mine), trainjob_schema(theirs, deadline=True))  # type: ignore[arg-type]


def test_a_rayjob() -> None:
    job = rayjob()
    jsonschema.validate(job, RAYJOB_SCHEMA)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert job["metadata"]["ownerReferences"][0]["uid"] == "u"
    spec = job["spec"]
    assert spec["entrypoint"] == "python -m kascade.cluster.worker 'a run'"
    assert spec["shutdownAfterJobFinishes"] is True and spec["activeDeadlineSeconds"] == 3600
    (workers,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 2
    container = workers["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert "nvidia.com/gpu" not in head["resources"]["limits"]
    assert spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert (spec["entrypointNumCpus"], spec["entrypointNumGpus"]) == (1, 1)  # so the driver gets a node


@pytest.mark.parametrize("restricted", [True, False])
def test_pods_of_jobs_meet_the_restricted_standard_unless_told_otherwise(restricted: bool) -> None:
    cluster = CLUSTER.model_copy(update={"restricted": restricted})
    found = pod_settings(cluster, cluster.default, {}, "image")
    assert (found.pod_security.get("runAsNonRoot") is True) == restricted
    assert (found.container_security.get("capabilities") == {"drop": ["ALL"]}) == restricted


def test_secrets_are_only_named() -> None:
    (variable,) = settings().env
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "token", "optional": False}


def test_what_the_task_was_given_wins_over_the_recipe() -> None:
    given = {
        "resources": {"limits": {"nvidia.com/gpu": "1"}},
        "env": [{"name": "HF_TOKEN", "value": "x"}],
        "volumes": [{"name": "runs", "persistentVolumeClaim": {"claimName": "other"}}],
        "volume_mounts": [{"name": "runs", "mountPath": "/kascade"}],
        "node_selector": {"gpu": "b200"},
        "tolerations": None,
    }
    found = settings(given)
    assert found.resources == given["resources"] and found.node_selector == {"gpu": "b200"}
    assert [variable.get("value") for variable in found.env] == ["x"]
    assert [m["mountPath"] for m in found.volume_mounts] == ["/kascade", "/data", "/dev/shm"]
    assert {v["name"] for v in found.volumes} == {m["name"] for m in found.volume_mounts}
    assert found.tolerations[0]["key"] == "nvidia.com/gpu"  # nothing given: the recipe's


def test_a_claim_that_is_mounted_twice_is_one_volume() -> None:
    """Kubeflow's driver names a volume after its claim; Kubernetes refuses two of one name."""
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    mounts = [{"name": "data", "mountPath": path} for path in ("/kascade", "/data")]
    found = settings({"volumes": [claim, claim], "volume_mounts": mounts})
    names = [volume["name"] for volume in found.volumes]
    assert names.count("data") == 1 and set(names) == {mount["name"] for mount in found.volume_mounts}


def test_names_are_stable_short_and_tell_work_apart() -> None:
    work = Work("/r", "a_very_long_stage_name_of_forty_characters", "recover-2", "c", "p")
    name = job_name(work)
    assert name == job_name(replace(work)) and len(name) <= 47
    assert name != job_name(replace(work, parent="another"))
    assert label_value("my run {1}-") == "my-run--1"


SOURCE = {"environment": "math_with_judge"}
SFT = {"kind": "sft", "name": "sft", "steps": 1, "data": [{"source": SOURCE}]}


def recipe_in(folder: Path, stage: dict[str, Any] = SFT, rounds: int = 0, **placement: Any) -> RunFolder:
    recipe = Recipe.model_validate(
        {
            "kascade": 1,
            "name": "r",
            "model": {"source": "builtin://mini-nemotron-h"},
            "stages": [stage],
            "benchmarks": [{"name": "m", "source": SOURCE}],
            "guard": {"recovery": {"rounds": rounds, "workers": {"samplers": 2, "driver_gpus": 0.5}}},
            "cluster": {"stages": {stage["name"]: {"silence_s": 30, **placement}}},
        }
    )
    layout = RunFolder(folder)
    write_json(layout.resolved_recipe, recipe.model_dump(mode="json"))
    return layout


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubApi]:
    """A cluster around this process."""
    from kubernetes import client, config

    stub = StubApi()
    fields = {"properties": {"spec": {"properties": {"runtimePatches": {}}}}}
    stub.description = {TRAINJOB.api_version: {"components": {"schemas": {"x.TrainJob": fields}}}}
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("POD_NAMESPACE", "team")
    monkeypatch.setattr(config, "load_incluster_config", lambda: None)
    configured = stub.client()
    monkeypatch.setattr(client, "ApiClient", lambda: configured)
    monkeypatch.setattr(place, "Patience", _quick)
    yield stub
    stub.close()


def _quick(silence_s: float, deadline_s: float | None) -> Any:
    from kascade.cluster.launch import Patience

    return Patience(silence_s, deadline_s, poll_s=0.02)


def works(api: StubApi, monkeypatch: pytest.MonkeyPatch, learn: Any) -> None:
    """Let the job's pod run `main` as its command says, with `learn` in place of the training."""
    monkeypatch.setattr("kascade.cluster.worker.train_here", learn)

    def pod(resource: dict[str, Any]) -> None:
        command = resource["spec"]["trainer"]["command"]
        try:
            main(*command[3:])
            kind = "Complete"
        except BaseException:
            kind = "Failed"
        resource["status"] = {"conditions": [{"type": kind, "status": "True"}]}

    def on_get(resource: dict[str, Any], times: int) -> None:
        if times == 2:
            threading.Thread(target=pod, args=(resource,)).start()

    api.on_get = on_get


def test_a_stage_of_two_nodes_learns_in_a_job(
    api: StubApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_in(tmp_path, nodes=2)
    works(api, monkeypatch, lambda work: f"{work.stage}/{work.attempt} of {work.parent}")
    assert launch_step(Work(str(tmp_path), "sft", "train", "p", "p"), {}) == "sft/train of p"
    assert api.verbs() == ["POST", "DELETE"]


def test_an_rl_stage_with_workers_learns_in_a_rayjob(
    api: StubApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entrypoint is run word by word, as a submitter does; what the task was given is handed on."""
    stage = {"kind": "if_rl", "name": "rl", "steps": 1, "data": [{"source": SOURCE}]}
    workers = {"samplers": 2, "driver_gpus": 0.5}
    recipe_in(tmp_path, stage | {"workers": workers}, nodes=2, accelerators=1, queue="research")
    monkeypatch.setattr("kascade.cluster.worker.train_here", lambda work: f"{work.stage} of {work.parent}")
    seen: list[dict[str, Any]] = []

    def on_get(resource: dict[str, Any], times: int) -> None:
        if times == 2:
            seen.append(json.loads(json.dumps(resource)))
            python, module, name, *words = shlex.split(resource["spec"]["entrypoint"])
            assert (python, module, name) == ("python", "-m", "kascade.cluster.worker")
            main(*words)
            resource["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}

    api.on_get = on_get
    given = {"resources": {"limits": {"nvidia.com/gpu": "4"}}}
    assert launch_step(Work(str(tmp_path), "rl", "train", "p", "a parent"), given) == "rl of a parent"
    (job,) = seen
    jsonschema.validate(job, RAYJOB_SCHEMA)
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
    assert job["spec"]["entrypointNumGpus"] == 0.5
    (nodes,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert nodes["template"]["spec"]["containers"][0]["resources"] == given["resources"]


def test_what_a_trainjob_trained_is_recovered_in_a_rayjob(
    api: StubApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recovery draws answers, which processes of one torchrun refuse to do."""
    layout = recipe_in(tmp_path, rounds=1, nodes=2, accelerators=1)
    monkeypatch.setattr("kascade.cluster.worker.train_here", lambda work: f"{work.stage} {work.attempt}")
    seen: list[dict[str, Any]] = []

    def on_get(resource: dict[str, Any], times: int) -> None:
        if times == 2:
            seen.append(json.loads(json.dumps(resource)))
            main(*shlex.split(resource["spec"]["entrypoint"])[3:])
            resource["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}

    api.on_get = on_get
    assert launch_step(Work(str(tmp_path), "sft", "recover-1", "c", "p"), {}) == "sft recover-1"
    (job,) = seen
    jsonschema.validate(job, RAYJOB_SCHEMA)
    assert job["spec"]["entrypointNumGpus"] == 0.5
    recipe = read_run_recipe(layout.root)
    (stage,) = recipe.stages
    assert recovery_workers(recipe, stage).samplers == 2


@pytest.mark.parametrize(
    ("known", "allowed", "told"),
    [
        (True, {"create", "get", "patch", "delete"}, None),
        (True, {"get"}, "may not create, patch, delete trainjobs in team"),
        (False, set(), "knows no TrainJob"),
    ],
)
def test_preflight_asks_whether_jobs_can_be_launched(
    api: StubApi, tmp_path: Path, known: bool, allowed: set[str], told: str | None
) -> None:
    asked: list[Any] = []

    def answer(verb: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        if path == "/apis/trainer.kubeflow.org/v1alpha1":
            return (200, {}) if known else (404, "404 page not found")
        assert path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        asked.append(body["spec"]["resourceAttributes"])
        return 201, {"spec": body["spec"], "status": {"allowed": asked[-1]["verb"] in allowed}}

    api.answer = answer  # type: ignore[method-assign]
    inline = read_run_recipe(recipe_in(tmp_path / "one").root)
    assert job_faults(inline) == [] and not asked
    faults = job_faults(read_run_recipe(recipe_in(tmp_path / "two", nodes=2).root))
    assert all(one["group"] == TRAINJOB.group and one["namespace"] == "team" for one in asked)
    if told is None:
        assert faults == [] and len(asked) == 4
    else:
        (fault,) = faults
        assert told in fault.what


def test_the_jobs_own_error_is_the_steps(
    api: StubApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kascade.errors import Fault

    layout = recipe_in(tmp_path, nodes=2)

    def faulty(work: Work) -> str:
        raise UserError(Fault("rows.jsonl:3", "is not JSON", remedy="mend it"))

    works(api, monkeypatch, faulty)
    with pytest.raises(UserError, match="is not JSON"):
        launch_step(Work(str(tmp_path), "sft", "train", "p", "p"), {})
    assert "mend it" in layout.log("sft.train.job").read_text()

    def crash(work: Work) -> str:
        raise RuntimeError("device lost")

    works(api, monkeypatch, crash)
    api._gets = 0
    with pytest.raises(JobFailed, match=r"failed(.|\n)*RuntimeError: device lost"):
        launch_step(Work(str(tmp_path), "sft", "train", "p", "p"), {})


def test_what_the_first_process_says_does_not_hide_the_node_that_failed_first(
    api: StubApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe_in(tmp_path, nodes=2)
    work = Work(str(tmp_path), "sft", "train", "p", "p")
    ended = {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-01T00:00:05Z"}
    labels = {
        "jobset.sigs.k8s.io/jobset-name": job_name(work),
        "batch.kubernetes.io/job-completion-index": "1",
    }
    container = {"name": "node", "image": "i", "imageID": "i", "ready": False, "restartCount": 0}
    status = {"containerStatuses": [{**container, "state": {"terminated": ended}}]}
    api.pods, api.logs = [{"metadata": {"name": "n1", "labels": labels}, "status": status}], {"n1": "900 GB"}

    def lose_a_peer(work: Work) -> str:
        raise RuntimeError("connection closed by peer")

    works(api, monkeypatch, lose_a_peer)
    with pytest.raises(JobFailed) as caught:
        launch_step(work, {})
    told = str(caught.value)
    assert told.index("node 1, pod n1 ended with code 137 (OOMKilled)") < told.index("closed by peer")
    assert "900 GB" in told


@pytest.mark.parametrize(("placement", "cluster"), [({}, True), ({"nodes": 2}, False)])
def test_one_node_or_no_cluster_learns_here(
    placement: dict[str, Any], cluster: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if cluster:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    recipe_in(tmp_path, **placement)
    monkeypatch.setattr(
        place, "train_here", lambda work: f"{work.stage} {work.attempt} {work.checkpoint} {work.parent}"
    )
    assert launch_step(Work(str(tmp_path), "sft", "recover-1", "c", "p"), {}) == "sft recover-1 c p"


@pytest.mark.slow
def test_processes_of_one_pod_tell_their_error(tmp_path: Path) -> None:
    """Real torchrun, two processes, a folder that is no run: the fault comes back as a fault."""
    with pytest.raises(UserError, match="is not the folder of a run"):
        place.run_processes(Work(str(tmp_path), "sft", "train", "p", "p"), 2)


def test_without_accelerators_there_is_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    recipe_in(tmp_path, accelerators=4)
    monkeypatch.setattr(place, "train_here", lambda work: "one")
    monkeypatch.setattr(place, "run_processes", lambda work, processes: f"{processes}")
    work = Work(str(tmp_path), "sft", "train", "p", "p")
    for devices, expected in ((0, "one"), (2, "2"), (8, "4")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda devices=devices: devices)
        assert place.train_inline(work) == expected
