"""What jobs run in their pods, under the launcher: a RayJob's entrypoint through a real Ray's job server, a
TrainJob's command under torchrun on two nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_head import ROOT, Head, KubeRay, ray_head
from stub_api import StubApi
from support.s3_servers import free_port

from kascade.cluster import place
from kascade.cluster.jobs import TRAINJOB
from kascade.cluster.launch import Patience
from kascade.cluster.place import launch_step
from kascade.cluster.worker import Work
from kascade.errors import UserError
from kascade.learning.metrics import read_metrics
from kascade.recipe.schema import Recipe
from kascade.steps import steps
from kascade.storage.checkpoint import verify
from kascade.storage.files import read_json, write_text
from kascade.storage.run_folder import RunFolder

pytestmark = pytest.mark.slow
pytest.importorskip("ray", reason="Ray is not installed: the RayJob's entrypoint was not run")
pytest.importorskip(
    "aiohttp_cors", reason="Ray's job server is not installed (ray[default]): no RayJob was run"
)

STEPS = 2
SOURCE = {"environment": "instruction_following", "count": 40}
SAMPLING = {"max_new_tokens": 16}
STAGE: dict[str, Any] = {
    "kind": "if_rl",
    "name": "if_rl",
    "steps": STEPS,
    "prompts_per_step": 4,
    "rollouts_per_prompt": 4,
    "sampling": SAMPLING,
    "optimizer": {"learning_rate": 1e-3},
    "grpo": {"min_usable_groups": 1},
    "data": [{"source": SOURCE}],
}
WORKERS = {"trainers": 2, "samplers": 2, "cpus": 0.5, "driver_cpus": 0.5}
CLUSTER_CPUS = 3


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    for package in ("ray", "aiohttp_cors"):
        pytest.importorskip(package, reason="ray[default] is not installed: no RayJob's entrypoint was run")
    with ray_head(CLUSTER_CPUS) as started:
        yield started


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubApi]:
    """A cluster around this process, whose operator is given by the test."""
    from kubernetes import client, config

    stub = StubApi()
    configured = stub.client()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("POD_NAMESPACE", "team")
    monkeypatch.setattr(config, "load_incluster_config", lambda: None)
    monkeypatch.setattr(client, "ApiClient", lambda: configured)
    monkeypatch.setattr(place, "Patience", lambda silence, deadline: Patience(silence, deadline, poll_s=0.5))
    yield stub
    stub.close()


def run_with(folder: Path, stage: dict[str, Any], **placement: Any) -> RunFolder:
    recipe = Recipe.model_validate(
        {
            "kascade": 1,
            "name": "r",
            "model": {"source": "builtin://mini-nemotron-h"},
            "threads": 1,
            "stages": [stage],
            "benchmarks": [{"name": "m", "source": SOURCE, "tasks": 8, "sampling": SAMPLING}],
            "guard": {
                "weak_exams": "warn",
                "screen_samples": 1,
                "confirm_samples": 2,
                "recovery": {"rounds": 0},
            },
            "cluster": {"stages": {stage["name"]: {"silence_s": 120, **placement}}},
        }
    )
    layout = RunFolder(folder)
    write_text(layout.resolved_recipe, recipe.model_dump_json())
    return layout


def test_the_entrypoint_trains_a_checkpoint_that_is_judged(head: Head, api: StubApi, tmp_path: Path) -> None:
    """Two trainers (gloo) and two samplers; the folder's name is one that a shell would take apart."""
    folder = tmp_path / "a run (1) $HOME"
    layout = run_with(folder, {**STAGE, "workers": WORKERS}, runs_as="rayjob", cpu="3")
    run, base = str(layout.root), begun(layout)
    operator = api.on_get = KubeRay(head)
    candidate = launch_step(Work(run, "if_rl", "train", base, base), {})

    assert operator.seen[-1] == ("Complete", "SUCCEEDED")
    assert ("Running", "RUNNING") in operator.seen
    assert api.verbs() == ["POST", "DELETE"]
    rows = judged(layout, "if_rl", candidate, base)
    assert max(float(row["logprob_gap"]) for row in rows) < 1e-3
    assert kinds_of_actors(head) == {"TrainerActor": 2, "RolloutActor": 2}


def begun(layout: RunFolder) -> str:
    base = steps.preflight(str(layout.root))
    steps.evaluate(str(layout.root), "base", base, base)
    return base


def judged(layout: RunFolder, stage: str, candidate: str, base: str) -> list[dict[str, Any]]:
    """The stage's curves, after its checkpoint proved to be trained and was judged."""
    run = str(layout.root)
    folder, manifest = verify(candidate)
    assert (manifest.stage, manifest.attempt, manifest.parent) == (stage, "train", base)
    weights = "model.safetensors"
    assert (folder / weights).read_bytes() != (verify(base)[0] / weights).read_bytes()
    (curves,) = layout.root.glob(f"training/{stage}/*/metrics.jsonl")
    rows = read_metrics(curves)
    assert [row["step"] for row in rows] == list(range(STEPS))
    steps.evaluate(run, stage, candidate, base)
    (verdict,) = layout.root.glob("verdicts/**/*.json")
    assert read_json(verdict)["checkpoint"] == candidate
    return rows


def kinds_of_actors(head: Head) -> dict[str, int]:
    """Actors that the cluster has had, the job server's own left out."""
    actors = head.get("/api/v0/actors?limit=100")["data"]["result"]["result"]
    return dict(Counter(one["class_name"] for one in actors if one["class_name"] != "JobSupervisor"))


def test_an_entrypoint_that_fails_is_told_in_its_own_words(head: Head, api: StubApi, tmp_path: Path) -> None:
    """More actors than the cluster holds: a fault for people, where Ray alone would wait for ever."""
    workers = {**WORKERS, "samplers": 20, "room_timeout_s": 1}
    layout = run_with(tmp_path / "run", {**STAGE, "workers": workers}, runs_as="rayjob", cpu="12")
    run = str(layout.root)
    base = steps.preflight(run)
    operator = api.on_get = KubeRay(head)
    with pytest.raises(UserError, match=r"22 actors of 0\.5 CPUs .* no room within 1 s") as caught:
        launch_step(Work(run, "if_rl", "train", base, base), {})
    assert "smaller actors" in str(caught.value.faults[0].remedy)
    assert operator.seen[-1] == ("Failed", "FAILED")
    assert api.verbs() == ["POST", "DELETE"]
    assert read_json(layout.step_error("if_rl.train.job"))["type"] == "UserError"
    assert read_json(layout.step_state("if_rl.train.job"))["state"] == "failed"


class Trainer:
    """What Kubeflow Trainer does with a TrainJob: its command once a node, torchrun told where by PET_*.

    Facts: trainer v2.3, pkg/runtime/framework/plugins/torch/torch.go. codes: of the nodes, by their number.
    """

    def __init__(self) -> None:
        self.codes: list[int] = []
        self._nodes: list[subprocess.Popen[bytes]] = []

    def __call__(self, resource: dict[str, Any], times: int) -> None:
        """Reconcile; a `StubApi.on_get`."""
        del times
        if not self._nodes:
            self._start(resource["spec"]["trainer"])
        found = [node.poll() for node in self._nodes]
        self.codes = [code for code in found if code is not None]
        if any(self.codes) or len(self.codes) == len(self._nodes):
            kind = "Failed" if any(self.codes) else "Complete"
            resource["status"] = {"conditions": [{"type": kind, "status": "True"}]}

    def _start(self, trainer: dict[str, Any]) -> None:
        binaries = Path(sys.executable).parent
        common = {
            **os.environ,
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PET_NNODES": str(trainer["numNodes"]),
            "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"]),
            "PET_MASTER_ADDR": "127.0.0.1",
            "PET_MASTER_PORT": str(free_port()),
        }
        for rank in range(trainer["numNodes"]):
            environment = {**common, "PET_NODE_RANK": str(rank)}
            self._nodes.append(subprocess.Popen(trainer["command"], env=environment))


def test_a_trainjobs_command_trains_on_two_nodes(api: StubApi, tmp_path: Path) -> None:
    stage = {
        "kind": "sft",
        "name": "sft",
        "steps": STEPS,
        "batch_size": 8,
        "optimizer": {"learning_rate": 1e-3},
        "data": [{"source": SOURCE}],
    }
    fields = {"properties": {"spec": {"properties": {"runtimePatches": {}}}}}
    api.description = {TRAINJOB.api_version: {"components": {"schemas": {"x.TrainJob": fields}}}}
    layout = run_with(tmp_path / "run", stage, nodes=2)
    run, base = str(layout.root), begun(layout)
    operator = api.on_get = Trainer()
    candidate = launch_step(Work(run, "sft", "train", base, base), {})
    assert operator.codes == [0, 0]
    assert api.verbs() == ["POST", "DELETE"]
    judged(layout, "sft", candidate, base)
    assert read_json(layout.step_state("sft.train.job"))["state"] == "succeeded"
