"""What is applied to a cluster: it renders, it is valid at a current version, and it keeps its promises."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cr_schemas import COUNT, STRINGS, TEXT, TOLERATION, closed, many

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ("single-node", "gpu", "s3-external")
CURRENT = "1.34"
QUOTA = closed(
    "name nominalQuota", name=TEXT, nominalQuota={"type": ["string", "integer"]}, borrowingLimit=TEXT
)
FLAVOR = closed("name resources", name=TEXT, resources=many(QUOTA))
GROUP = closed("coveredResources flavors", coveredResources=many(TEXT), flavors=many(FLAVOR))
SELECTOR = closed(matchLabels=STRINGS, matchExpressions=many({"type": "object"}))
# Facts: kueue v0.10, apis/kueue/v1beta1.
KUEUE = {
    "ResourceFlavor": closed(nodeLabels=STRINGS, nodeTaints=many({}), tolerations=many(TOLERATION)),
    "ClusterQueue": closed(
        cohort=TEXT,
        namespaceSelector=SELECTOR,
        preemption=closed(
            withinClusterQueue={"enum": ["Never", "LowerPriority", "LowerOrNewerEqualPriority"]}
        ),
        queueingStrategy={"enum": ["StrictFIFO", "BestEffortFIFO"]},
        resourceGroups=many(GROUP),
    ),
    "LocalQueue": closed(clusterQueue=TEXT, stopPolicy=TEXT, maxCount=COUNT),
}

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed: the manifests were NOT rendered"
)


@cache
def rendered(overlay: str) -> tuple[dict[str, Any], ...]:
    folder = ROOT / "manifests" if overlay == "kueue" else ROOT / "manifests" / "overlays"
    command = ["kubectl", "kustomize", str(folder / overlay)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return tuple(yaml.safe_load_all(text))


def named(overlay: str, kind: str, name: str) -> dict[str, Any]:
    return next(r for r in rendered(overlay) if r["kind"] == kind and r["metadata"]["name"] == name)


def pod_specs(overlay: str) -> list[dict[str, Any]]:
    return [
        r["spec"]["template"]["spec"]
        for r in rendered(overlay)
        if r["kind"] in ("Deployment", "StatefulSet", "Job")
    ]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid_at_a_current_version(overlay: str) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for resource in rendered(overlay):
        validate(resource, CURRENT, strict=True)  # also: nothing that wants an operator's CRD


def test_queues_validate_against_kueues_schema() -> None:
    queues = rendered("kueue")
    assert {queue["kind"] for queue in queues} == set(KUEUE)
    for queue in queues:
        jsonschema.validate(queue["spec"], KUEUE[queue["kind"]])
        assert ("namespace" in queue["metadata"]) == (queue["kind"] == "LocalQueue")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_meet_the_restricted_standard(overlay: str) -> None:
    for pod in pod_specs(overlay):
        restricted(pod)


def restricted(pod: dict[str, Any]) -> None:
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True and context["seccompProfile"]["type"] == "RuntimeDefault"
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all("hostPath" not in volume for volume in pod.get("volumes", []))
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False and own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"] is True
        assert {"requests", "limits"} <= container["resources"].keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_named_and_never_held(overlay: str) -> None:
    assert all(resource["kind"] != "Secret" for resource in rendered(overlay))
    for pod in pod_specs(overlay):
        for variable in pod["containers"][0].get("env", []):
            if any(word in variable["name"] for word in ("PASSWORD", "SECRET", "KEY")):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_that_is_named_is_there(overlay: str) -> None:
    """Config maps, service accounts and claims of pods; secrets are made by hand, and listed in the docs."""
    there = {(r["kind"], r["metadata"]["name"]) for r in rendered(overlay)}
    documented = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    for pod in pod_specs(overlay):
        assert ("ServiceAccount", pod["serviceAccountName"]) in there
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
        for variable in pod["containers"][0].get("env", []):
            source = variable.get("valueFrom", {})
            if "configMapKeyRef" in source:
                config = named(overlay, "ConfigMap", source["configMapKeyRef"]["name"])
                assert source["configMapKeyRef"]["key"] in config["data"]
            if "secretKeyRef" in source:
                assert f"create secret generic {source['secretKeyRef']['name']}" in documented
                assert f"--from-literal={source['secretKeyRef']['key']}=" in documented


def test_tracking_wants_a_password_and_knows_its_own_names() -> None:
    container = named("gpu", "Deployment", "mlflow")["spec"]["template"]["spec"]["containers"][0]
    arguments = " ".join(container["args"])
    assert "--app-name=basic-auth" in arguments and "s3://$(BUCKET)" in arguments
    hosts = next(a for a in container["args"] if a.startswith("--allowed-hosts="))
    for host in ("mlflow:5000", "mlflow.$(NAMESPACE).svc.cluster.local:5000", "localhost:5000"):
        assert host in hosts.partition("=")[2].split(",")
    assert "://" not in arguments.replace("s3://", "").replace("postgresql+psycopg2:///", "")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_one_line_of_kustomize_moves_everything_to_another_namespace(overlay: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    mine = tmp_path / "manifests" / "mine"
    mine.mkdir()
    parts = f"[../overlays/{overlay}, ../kueue]"
    (mine / "kustomization.yaml").write_text(f"namespace: team-a\nresources: {parts}\n")
    done = subprocess.run(["kubectl", "kustomize", str(mine)], capture_output=True, text=True, check=True)
    resources = list(yaml.safe_load_all(done.stdout))
    assert "namespace: kascade" not in done.stdout
    (namespace,) = [r["metadata"] for r in resources if r["kind"] == "Namespace"]
    (queue,) = [r["spec"] for r in resources if r["kind"] == "ClusterQueue"]
    assert namespace["name"] == "team-a"
    assert queue["namespaceSelector"]["matchLabels"].items() <= namespace["labels"].items()
    assert {r["metadata"]["namespace"] for r in resources if r["kind"] != "Namespace"} == {"team-a"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_namespace_that_others_use_keeps_its_own_labels_and_limits(overlay: str, tmp_path: Path) -> None:
    """Default limits would hold for Kubeflow's own pods, and our label would loosen a stricter namespace."""
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    mine = tmp_path / "manifests" / "mine"
    mine.mkdir()
    documented = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    lines = [f"namespace: kubeflow\nresources: [../overlays/{overlay}]"]
    lines += re.findall(r"`echo [\"'](.+)[\"'] >> manifests/mine/kustomization.yaml`", documented)
    text = "\n".join(lines)
    assert "shared-namespace" in text
    (mine / "kustomization.yaml").write_text(text)
    done = subprocess.run(["kubectl", "kustomize", str(mine)], capture_output=True, text=True, check=True)
    assert "storageClassName: my-nfs" in done.stdout
    left = [(r["kind"], r["metadata"]["name"]) for r in yaml.safe_load_all(done.stdout)]
    limits = {"Namespace", "ResourceQuota", "LimitRange"}
    whole = [(r["kind"], r["metadata"]["name"]) for r in rendered(overlay)]
    assert left == [one for one in whole if one[0] not in limits] and len(whole) - len(left) == 3


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_service_and_no_policy_takes_in_pods_of_others(overlay: str) -> None:
    """Another MLflow or Postgres in the namespace has the same name as its label."""
    for resource in rendered(overlay):
        if resource["kind"] == "Service":
            chosen = [resource["spec"]["selector"]]
        elif resource["kind"] == "NetworkPolicy" and resource["metadata"]["name"] != "sandbox":
            rules = [peer for rule in resource["spec"].get("ingress", []) for peer in rule["from"]]
            chosen = [one["podSelector"] for one in rules if one["podSelector"]]
            chosen = [one["matchLabels"] for one in (resource["spec"]["podSelector"], *chosen)]
        else:
            continue
        for labels in chosen:
            assert labels["app.kubernetes.io/part-of"] == "kascade", resource["metadata"]["name"]
            pods = [
                r["spec"]["template"]["metadata"]
                for r in rendered(overlay)
                if "template" in r.get("spec", {})
            ]
            assert [pod for pod in pods if labels.items() <= pod["labels"].items()], "it chooses our own pod"


@cache
def rendered_with_vllm() -> tuple[dict[str, Any], ...]:
    """As docs/distributed.md has it: a vLLM server beside an overlay, for a model of one's own."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(ROOT / "manifests", Path(scratch) / "manifests")
        mine = Path(scratch) / "manifests" / "mine"
        mine.mkdir()
        own = {"name": "kascade-vllm", "behavior": "merge", "literals": ["model=/kascade/models/base"]}
        (mine / "kustomization.yaml").write_text(
            yaml.safe_dump(
                {
                    "namespace": "team-a",
                    "resources": ["../overlays/gpu", "../vllm"],
                    "configMapGenerator": [own],
                    "images": [{"name": "kascade-vllm", "newName": "registry.example.com/kascade-vllm"}],
                }
            )
        )
        command = ["kubectl", "kustomize", str(mine)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return tuple(yaml.safe_load_all(text))


def vllm_pod() -> dict[str, Any]:
    found = [r for r in rendered_with_vllm() if (r["kind"], r["metadata"]["name"]) == ("Deployment", "vllm")]
    return dict(found[0]["spec"]["template"]["spec"])


def test_a_vllm_server_is_valid_restricted_and_serves_the_model_that_is_named() -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for resource in rendered_with_vllm():
        validate(resource, CURRENT, strict=True)
        assert resource["kind"] == "Namespace" or resource["metadata"]["namespace"] == "team-a"
    pod = vllm_pod()
    (container,) = pod["containers"]
    restricted(pod)
    assert container["image"] == "registry.example.com/kascade-vllm:0.1.0"
    values = {v["name"]: v["valueFrom"].get("configMapKeyRef") for v in container["env"] if "valueFrom" in v}
    configs = {r["metadata"]["name"]: r["data"] for r in rendered_with_vllm() if r["kind"] == "ConfigMap"}
    model, dtype = (configs[values[name]["name"]][values[name]["key"]] for name in ("MODEL", "DTYPE"))
    assert (model, dtype) == ("/kascade/models/base", "bfloat16")
    policy = next(
        r for r in rendered_with_vllm() if r["kind"] == "NetworkPolicy" and r["metadata"]["name"] == "vllm"
    )
    assert policy["spec"]["ingress"] == [
        {"from": [{"podSelector": {}}]}
    ]  # the namespace's own, on every port


def test_a_vllm_server_is_started_as_kascade_starts_one() -> None:
    """Otherwise a run refuses it; the address is the one of the docs."""
    from kascade.recipe.vllm import VLLM, ServedVLLM
    from kascade.rollout.vllm_process import ENVIRONMENT, options

    (container,) = vllm_pod()["containers"]
    given = dict(one.removeprefix("--").split("=", 1) for one in container["args"][1:])
    flat = options(ServedVLLM(python="python"), VLLM(), "$(DTYPE)")
    wanted = dict(zip((one.removeprefix("--") for one in flat[::2]), flat[1::2], strict=True))
    same = ("dtype", "load-format", "logprobs-mode")
    assert {name: given[name] for name in same} == {name: wanted[name] for name in same}
    transfer = "weight-transfer-config"
    assert json.loads(given[transfer]) == json.loads(wanted[transfer]) == {"backend": "nccl"}
    variables = {v["name"]: v.get("value") for v in container["env"]}
    assert variables["VLLM_SERVER_DEV_MODE"] == ENVIRONMENT["VLLM_SERVER_DEV_MODE"]
    service = next(
        r for r in rendered_with_vllm() if r["kind"] == "Service" and r["metadata"]["name"] == "vllm"
    )
    assert service["spec"]["ports"][0]["port"] == int(given["port"]) == 8000
    assert "http://vllm:8000" in (ROOT / "docs" / "distributed.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "read_only"), [("reader", True), ("writer", False)])
def test_pods_for_people_are_valid_and_restricted(name: str, read_only: bool) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    pod = yaml.safe_load((ROOT / "manifests" / f"{name}.yaml").read_text(encoding="utf-8"))
    validate(pod, CURRENT, strict=True)
    assert pod["spec"]["containers"][0]["volumeMounts"][0].get("readOnly", False) is read_only
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True and "namespace" not in pod["metadata"]
    image = pod["spec"]["containers"][0]["image"]
    assert image in {c["image"] for spec in pod_specs("gpu") for c in spec["containers"]}


def test_a_sandbox_talks_to_nobody() -> None:
    spec = named("gpu", "NetworkPolicy", "sandbox")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"] and not {"ingress", "egress"} & spec.keys()


def test_a_launcher_may_do_what_it_does_and_no_more() -> None:
    """The verbs that `kascade.cluster` uses; no secret, no pod made, nothing beyond its namespace."""
    for overlay in OVERLAYS:
        role = named(overlay, "Role", "kascade-launcher")
        rights = {
            (g, r): set(rule["verbs"])
            for rule in role["rules"]
            for g in rule["apiGroups"]
            for r in rule["resources"]
        }
        jobs = {"create", "get", "patch", "delete"}
        assert rights == {
            ("trainer.kubeflow.org", "trainjobs"): jobs,
            ("ray.io", "rayjobs"): jobs,
            ("", "pods"): {"get", "list"},
            ("", "pods/log"): {"get"},
        }
        assert all(r["kind"] not in ("ClusterRole", "ClusterRoleBinding") for r in rendered(overlay))


def test_the_recipes_defaults_are_the_manifests_names() -> None:
    from kascade.recipe.cluster import Cluster

    cluster = Cluster()
    assert named("gpu", "PersistentVolumeClaim", cluster.storage.claim)
    assert named("gpu", "ServiceAccount", cluster.service_account)
    assert named("single-node", "PersistentVolumeClaim", "kascade-runs")["spec"]["accessModes"] == [
        "ReadWriteOnce"
    ]
