"""A RayJob's own entrypoint on a real Ray cluster, through its job server, under the launcher."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stub_api import StubApi

sys.path.append(str(Path(__file__).resolve().parents[1] / "storage"))

from ray_head import KubeRay, ray_head

from kascade.cluster import place
from kascade.cluster.launch import Patience
from kascade.cluster.place import launch_step
from kascade.cluster.worker import Work
from kascade.errors import UserError
from kascade.learning.metrics import read_metrics
from kascade.recipe.schema import Recipe
from kascade.stages import steps
from kascade.storage.checkpoint import verify
from kascade.storage.files import read_json, write_text
from kascade.storage.layout import RunLayout

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
def jobs() -> Iterator[str]:
    with ray_head(CLUSTER_CPUS) as address:
        yield address


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


def run_with(folder: Path, workers: dict[str, Any]) -> RunLayout:
    recipe = Recipe.model_validate(
        {
            "kascade": 1,
            "name": "r",
            "model": {"source": "builtin://mini-nemotron-h"},
            "threads": 1,
            "stages": [{**STAGE, "workers": workers}],
            "benchmarks": [{"name": "m", "source": SOURCE, "tasks": 8, "sampling": SAMPLING}],
            "guard": {"screen_samples": 1, "confirm_samples": 2, "recovery": {"rounds": 0}},
            "cluster": {"stages": {"if_rl": {"runs_as": "rayjob", "cpu": "100", "silence_s": 120}}},
        }
    )
    layout = RunLayout(folder)
    write_text(layout.resolved_recipe, recipe.model_dump_json())
    return layout


def test_the_entrypoint_trains_a_checkpoint_that_is_judged(jobs: str, api: StubApi, tmp_path: Path) -> None:
    """Two trainers (gloo) and two samplers; the folder's name is one that a shell would take apart."""
    layout = run_with(tmp_path / "a run (1) $HOME", WORKERS)
    run = str(layout.root)
    base = steps.preflight(run)
    steps.evaluate(run, "base", base, base)
    operator = api.on_get = KubeRay(jobs)
    candidate = launch_step(Work(run, "if_rl", "train", base, base), {})

    assert operator.seen[-1] == ("Complete", "SUCCEEDED")
    assert ("Running", "RUNNING") in operator.seen
    assert api.verbs() == ["POST", "DELETE"]
    folder, manifest = verify(candidate)
    assert (manifest.stage, manifest.attempt, manifest.parent) == ("if_rl", "train", base)
    weights = "model.safetensors"
    assert (folder / weights).read_bytes() != (verify(base)[0] / weights).read_bytes()
    (curves,) = layout.root.glob("training/if_rl/*/metrics.jsonl")
    rows = read_metrics(curves)
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert max(float(row["logprob_gap"]) for row in rows) < 1e-3
    assert kinds_of_actors(jobs) == {"TrainerActor": 2, "RolloutActor": 2}
    steps.evaluate(run, "if_rl", candidate, base)
    steps.verdict(run, "if_rl", candidate, base)
    (verdict,) = layout.root.glob("verdicts/**/*.json")
    assert read_json(verdict)["checkpoint"] == candidate


def kinds_of_actors(address: str) -> dict[str, int]:
    """Actors of our library that the cluster has had, the job server's own left out."""
    from ray.util.state import list_actors

    actors = list_actors(address=address, limit=100)
    return dict(Counter(one.class_name for one in actors if one.class_name != "JobSupervisor"))


def test_an_entrypoint_that_fails_is_told_in_its_own_words(jobs: str, api: StubApi, tmp_path: Path) -> None:
    """More actors than the cluster holds: a fault for people, where Ray alone would wait for ever."""
    layout = run_with(tmp_path / "run", {**WORKERS, "samplers": 20, "room_timeout_s": 1})
    run = str(layout.root)
    base = steps.preflight(run)
    operator = api.on_get = KubeRay(jobs)
    with pytest.raises(UserError, match=r"22 actors of 0\.5 CPUs .* no room within 1 s") as caught:
        launch_step(Work(run, "if_rl", "train", base, base), {})
    assert "smaller actors" in str(caught.value.faults[0].remedy)
    assert operator.seen[-1] == ("Failed", "FAILED")
    assert api.verbs() == ["POST", "DELETE"]
    assert read_json(layout.task_error("if_rl.train.job"))["type"] == "UserError"
    assert read_json(layout.task_state("if_rl.train.job"))["state"] == "failed"
