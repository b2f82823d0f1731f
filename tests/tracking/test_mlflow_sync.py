"""MLflow on a real sqlite file, made from a run's folder, twice and in pieces."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kascade.errors import UserError
from kascade.guard.approval import ask, go_on
from kascade.guard.end_check import EndVerdict, Held, write_end_verdict
from kascade.guard.lineage import Outcome, OutcomeDecision, write_outcome
from kascade.guard.scores import Score, read_score, write_score
from kascade.recipe.approval import Approval
from kascade.recipe.schema import Recipe
from kascade.storage.checkpoint import CheckpointRef, Manifest, open_checkpoint, publish
from kascade.storage.files import write_json, write_text
from kascade.storage.run_folder import RunFolder
from kascade.tracking.mlflow_query import best_checkpoints
from kascade.tracking.mlflow_server import TrackingError, connect, tracking_uri, ui_command
from kascade.tracking.mlflow_sync import sync

START = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = 60


def recipe(uri: str | None = None) -> Recipe:
    def stage(name: str, kind: str, environment: str) -> dict[str, Any]:
        return {
            "name": name,
            "kind": kind,
            "steps": STEPS,
            "data": [{"source": {"environment": environment}}],
        }

    return Recipe.model_validate(
        {
            "kascade": 1,
            "name": "tiny",
            "model": {"source": "builtin://tiny"},
            "stages": [stage("sft", "sft", "mcqa"), stage("if_rl", "if_rl", "instruction_following")],
            "benchmarks": [
                {"name": "mcqa", "source": {"environment": "mcqa"}},
                {"name": "ifeval", "source": {"environment": "instruction_following"}},
            ],
            "tracking": {"uri": uri},
        }
    )


class Run:
    """A run's folder that grows as a cascade does."""

    def __init__(self, root: Path) -> None:
        self.layout, self.made = RunFolder(root), 0
        write_text(self.layout.resolved_recipe, recipe().model_dump_json())

    def checkpoint(
        self,
        stage: str,
        attempt: str,
        parent: str | None,
        *,
        mcqa: float,
        ifeval: float,
        weights: str | None = None,
    ) -> str:
        """A checkpoint with curves and scores; the scores' means are exactly those given (in 1/100)."""
        self.made += 1
        staged = self.layout.root / "staged"
        staged.mkdir()
        (staged / "weights.bin").write_text(weights or f"{stage} {attempt}")
        manifest = Manifest(
            id=f"{stage}/{attempt}-k",
            stage=stage,
            attempt=attempt,
            key="k",
            parent=parent,
            fingerprint="f",
            code_version="0",
            created=(START + timedelta(minutes=self.made)).isoformat(),
            files={},
        )
        ref = publish(staged, self.layout.checkpoint(manifest.id), manifest)
        for name, domain, mean in (("mcqa", "knowledge", mcqa), ("ifeval", "instruction_following", ifeval)):
            rewards = {f"{name}-{i}": [float(i < round(100 * mean))] for i in range(100)}
            score = Score(
                benchmark=name,
                domain=domain,
                checkpoint=ref.digest,
                phase="screen",
                round=0,
                temperature=1.0,
                rewards=rewards,
                greedy={"mcqa-0": 1.0} if name == "mcqa" else {},
                mean_response_tokens=9.0,
                num_truncated=0,
            )
            write_score(self.layout, score)
        if parent is not None:
            rows = [
                {"step": i, "reward": i / STEPS, "entropy": 1.5, "loss": float("nan")} for i in range(STEPS)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            write_text(self.layout.training(manifest.id).curves, lines)
            write_text(self.layout.verdict(manifest.id), "{}")
        return str(ref)

    def settle(self, decision: OutcomeDecision, candidate: str, parent: str, accepted: str | None) -> None:
        _, manifest = open_checkpoint(CheckpointRef.parse(candidate).path)
        write_outcome(
            self.layout,
            Outcome(
                stage=manifest.stage,
                key=manifest.key,
                decision=decision,
                candidate=candidate,
                accepted=accepted,
                parent=parent,
                verdicts=(manifest.id,),
                reasons=("because",),
                created=manifest.created,
            ),
        )
        cost = {"sampling_s": 2.0, "wall_s": 4.0, "cpu_s": 3.5, "peak_memory_bytes": 1e9}
        write_json(self.layout.cost(f"train-{manifest.stage}"), cost)


@pytest.fixture(autouse=True)
def _own_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make its tables: once is enough."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with connect(f"sqlite:///{path}") as client:
        client.search_experiments()
    return path


@pytest.fixture
def run(tmp_path: Path, empty_database: Path) -> Run:
    made = Run(tmp_path / "run")
    shutil.copy(empty_database, made.layout.mlflow_database)
    return made


def first_stage(run: Run) -> tuple[str, str]:
    base = run.checkpoint("base", "train", None, mcqa=0.2, ifeval=0.1)
    sft = run.checkpoint("sft", "train", base, mcqa=0.8, ifeval=0.4)
    run.settle("accepted", sft, base, sft)
    return base, sft


def second_stage(run: Run, sft: str) -> tuple[str, str]:
    fallen = run.checkpoint("if_rl", "train", sft, mcqa=0.9, ifeval=0.95)
    healed = run.checkpoint("if_rl", "recover-1", fallen, mcqa=0.7, ifeval=0.9)
    run.settle("recovered", healed, sft, healed)
    return fallen, healed


def contents(root: Path) -> dict[str, Any]:
    """All that a reader of MLflow sees, ids left out."""
    with connect(tracking_uri(root, recipe())) as client:
        experiment = client.get_experiment_by_name("kascade").experiment_id
        runs = client.search_runs([experiment])
        names = {run.info.run_id: run.data.tags["mlflow.runName"] for run in runs}
        models = client.search_logged_models([experiment])
        return {
            "runs": sorted(names.values()),
            "status": {names[run.info.run_id]: run.info.status for run in runs},
            "parents": {
                names[run.info.run_id]: names.get(run.data.tags.get("mlflow.parentRunId")) for run in runs
            },
            "params": {names[run.info.run_id]: run.data.params for run in runs},
            "history": {
                (names[run.info.run_id], key): sorted(
                    (m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)
                )
                for run in runs
                for key in run.data.metrics
            },
            "models": {
                model.tags["id"]: (
                    model.tags["accepted"],
                    names[model.source_run_id],
                    sorted((m.key, m.dataset_name, m.value) for m in model.metrics),
                )
                for model in models
            },
            "files": {
                name: sorted(file.path for file in client.list_artifacts(run_id, "verdicts/if_rl"))
                for run_id, name in names.items()
            },
        }


def test_a_model_carries_the_end_checks_words(run: Run) -> None:
    _, sft = first_stage(run)
    held = {
        name: Held(benchmark=name, domain="knowledge", standing=standing, against=())
        for name, standing in (("mcqa", "kept"), ("ifeval", "not_shown"))
    }
    found = EndVerdict(checkpoint=sft, round=0, margin=0.03, level=0.05, benchmarks=held)
    write_end_verdict(run.layout, found)
    sync(run.layout.root, recipe())
    with connect(tracking_uri(run.layout.root, recipe())) as client:
        experiment = client.get_experiment_by_name("kascade").experiment_id
        tags = {model.tags["id"]: model.tags for model in client.search_logged_models([experiment])}
    of_sft = next(found for id_, found in tags.items() if id_.startswith("sft/"))
    assert (of_sft["end.mcqa"], of_sft["end.ifeval"]) == ("kept", "not shown")


@pytest.mark.parametrize(("on_loss", "status"), [("stop", "FAILED"), ("report", "FINISHED")])
def test_a_run_that_the_end_check_stops_has_failed(run: Run, on_loss: str, status: str) -> None:
    _, sft = first_stage(run)
    _, last = second_stage(run, sft)
    plain = recipe()
    rule = plain.guard.retention.model_copy(update={"on_loss": on_loss})
    made = plain.model_copy(update={"guard": plain.guard.model_copy(update={"retention": rule})})
    sync(run.layout.root, made)
    assert contents(run.layout.root)["status"]["tiny"] == "FINISHED", "before its end check"
    held = {"mcqa": Held(benchmark="mcqa", domain="knowledge", standing="lost", against=())}
    write_end_verdict(
        run.layout, EndVerdict(checkpoint=last, round=0, margin=0.03, level=0.05, benchmarks=held)
    )
    sync(run.layout.root, made)
    assert contents(run.layout.root)["status"] == {"tiny": status, "sft": "FINISHED", "if_rl": "FINISHED"}


def test_a_run_becomes_runs_models_and_scores(run: Run) -> None:
    _, sft = first_stage(run)
    second_stage(run, sft)
    sync(run.layout.root, recipe())
    found = contents(run.layout.root)
    assert found["runs"] == ["if_rl", "sft", "tiny"]
    assert found["parents"] == {"tiny": None, "sft": "tiny", "if_rl": "tiny"}
    assert set(found["status"].values()) == {"FINISHED"}
    assert found["params"]["if_rl"]["optimizer.learning_rate"] == "3e-06"
    assert found["params"]["tiny"]["guard.family_level"] == "0.01"
    assert found["history"]["sft", "train/reward"][-1] == (STEPS - 1, pytest.approx(59 / 60))
    assert ("sft", "train/loss") not in found["history"], "not a number"
    assert len(found["history"]["if_rl", "recover-1/entropy"]) == STEPS
    assert found["history"]["tiny", "mcqa"] == [(0, 0.2), (1, 0.8), (2, 0.7)], "accepted line only"
    assert found["history"]["tiny", "cost/cpu_s"] == [(2, 7.0)]
    assert found["models"]["if_rl/train-k"][:2] == ("false", "if_rl")
    assert found["models"]["if_rl/recover-1-k"][0] == "true"
    assert ("mcqa", "mcqa", 0.8) in found["models"]["sft/train-k"][2]
    assert ("mcqa.greedy", "mcqa", 1.0) in found["models"]["sft/train-k"][2]
    expected = ["verdicts/if_rl/recover-1-k.json", "verdicts/if_rl/train-k.json"]
    assert found["files"] == {"if_rl": expected, "sft": [], "tiny": []}


def test_who_thinks_as_asked_is_a_metric_of_the_model_and_of_the_run(run: Run) -> None:
    """Of benchmarks that ask for thinking or for none; others have no such metric."""
    _, sft = first_stage(run)
    digest = CheckpointRef.parse(sft).digest
    score = read_score(run.layout, digest, "mcqa", "screen")
    assert score is not None
    write_score(run.layout, score.model_copy(update={"switch_obeyed": 0.75, "thought": 0.5}))
    curves = run.layout.training("sft/train-k").curves
    rows = [{"step": i, "reward": 0.5, "switch_obeyed": i / STEPS} for i in range(STEPS)]
    write_text(curves, "".join(json.dumps(row) + "\n" for row in rows))
    sync(run.layout.root, recipe())
    found = contents(run.layout.root)
    metrics = {
        (name, value) for name, dataset, value in found["models"]["sft/train-k"][2] if dataset == "mcqa"
    }
    assert {("mcqa.switch_obeyed", 0.75), ("mcqa.thought", 0.5)} <= metrics
    assert found["history"]["tiny", "mcqa.switch_obeyed"] == [(1, 0.75)]
    assert found["history"]["sft", "train/switch_obeyed"][-1] == (STEPS - 1, pytest.approx(59 / 60))
    assert not [key for _, key in found["history"] if key.startswith("ifeval.switch")]


def test_a_model_whose_sync_was_killed_half_way_is_ready_after_the_next(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        """What a kill leaves behind: everything before it."""

    def killed(*_: Any) -> None:
        raise Killed

    first_stage(run)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("mlflow.tracking.MlflowClient.finalize_logged_model", killed)
        sync(run.layout.root, recipe())
    sync(run.layout.root, recipe())
    with connect(tracking_uri(run.layout.root, recipe())) as client:
        experiment = client.get_experiment_by_name("kascade").experiment_id
        models = client.search_logged_models([experiment])
    assert {str(model.status) for model in models} == {"READY"}


def test_best_checkpoint_of_a_domain_is_a_query(run: Run) -> None:
    _, sft = first_stage(run)
    _, healed = second_stage(run, sft)
    sync(run.layout.root, recipe())
    best = best_checkpoints(run.layout.root)
    assert set(best) == {"knowledge", "instruction_following"}
    assert (best["knowledge"].reference, best["knowledge"].mean) == (sft, 0.8), "not the rejected 0.9"
    assert best["instruction_following"].reference == healed
    assert best_checkpoints(tracking_uri(run.layout.root, recipe())) == best
    assert best_checkpoints(tracking_uri(run.layout.root, recipe()), experiment="none") == {}


def test_in_pieces_and_twice_is_the_same_as_at_once(run: Run, tmp_path: Path, empty_database: Path) -> None:
    _, sft = first_stage(run)
    sync(run.layout.root, recipe())
    assert contents(run.layout.root)["status"] == {"tiny": "RUNNING", "sft": "FINISHED"}
    fallen = run.checkpoint("if_rl", "train", sft, mcqa=0.9, ifeval=0.95)
    sync(run.layout.root, recipe())
    healed = run.checkpoint("if_rl", "recover-1", fallen, mcqa=0.7, ifeval=0.9)
    run.settle("recovered", healed, sft, healed)
    sync(run.layout.root, recipe())
    sync(run.layout.root, recipe())

    whole = Run(tmp_path / "whole")
    shutil.copy(empty_database, whole.layout.mlflow_database)
    _, sft = first_stage(whole)
    second_stage(whole, sft)
    sync(whole.layout.root, recipe())
    pieces, at_once = contents(run.layout.root), contents(whole.layout.root)
    # These grew with the pieces.
    totals = ("cost/wall_s", "cost/cpu_s", "cost/accelerator_s", "cost/peak_memory_bytes")
    assert [pieces["history"].pop(("tiny", name))[-1] for name in totals] == [
        at_once["history"].pop(("tiny", name))[-1] for name in totals
    ]
    assert pieces == at_once


def test_a_stopped_cascade_is_a_failed_run(run: Run) -> None:
    _, sft = first_stage(run)
    fallen = run.checkpoint("if_rl", "train", sft, mcqa=0.1, ifeval=0.9)
    run.settle("stopped", fallen, sft, None)
    sync(run.layout.root, recipe())
    assert contents(run.layout.root)["status"] == {"tiny": "FAILED", "sft": "FINISHED", "if_rl": "FAILED"}


def test_a_run_that_waits_says_so_until_it_goes_on(run: Run) -> None:
    first_stage(run)
    asking = recipe().model_copy(update={"approval": Approval(before=("if_rl",))})
    ask(run.layout, asking, "if_rl", f"file:///c@sha256:{'a' * 64}")
    for word, before in (("waiting for approval", "if_rl"), ("", "")):
        sync(run.layout.root, asking)
        with connect(tracking_uri(run.layout.root, asking)) as client:
            runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
        tags = [one.data.tags for one in runs if "kascade.waiting" in one.data.tags]
        found = [(one["kascade.waiting"], one["kascade.waiting_before"]) for one in tags]
        assert found == [(word, before)]
        go_on(run.layout)


def test_a_stage_without_updates_is_a_checkpoint_of_its_own(run: Run) -> None:
    base = run.checkpoint("base", "train", None, mcqa=0.2, ifeval=0.1)
    same = run.checkpoint("sft", "train", base, mcqa=0.2, ifeval=0.1, weights="base train")
    assert CheckpointRef.parse(base).digest != CheckpointRef.parse(same).digest
    run.settle("accepted", same, base, same)
    sync(run.layout.root, recipe())
    found = contents(run.layout.root)
    assert found["models"]["sft/train-k"][1] == "sft"
    assert found["models"]["base/train-k"][1] == "tiny"


def test_the_platforms_run_is_adopted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first_stage(run)
    with connect(tracking_uri(run.layout.root, recipe())) as client:
        experiment = client.create_experiment("platform")
        pipeline = client.create_run(experiment, tags={"mlflow.runName": "pipeline"})
        task = client.create_run(experiment, tags={"mlflow.parentRunId": pipeline.info.run_id})
        monkeypatch.setenv("MLFLOW_RUN_ID", task.info.run_id)
        sync(run.layout.root, recipe())
        runs = client.search_runs([experiment], filter_string="tags.`kascade.stage` LIKE 'sft/%'")
        assert [one.data.tags["mlflow.parentRunId"] for one in runs] == [pipeline.info.run_id]
        assert client.get_run(pipeline.info.run_id).info.status == "RUNNING"


def test_a_later_step_that_the_platform_says_nothing_to_finds_its_run(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kascade promote` by hand, a job of several nodes: no second run, nothing logged twice."""
    first_stage(run)
    with connect(tracking_uri(run.layout.root, recipe())) as client:
        platform = client.create_experiment("platform")
        pipeline = client.create_run(platform)
        monkeypatch.setenv("MLFLOW_RUN_ID", pipeline.info.run_id)
        sync(run.layout.root, recipe())
        before = len(client.search_runs([platform])), len(client.search_logged_models([platform]))
        monkeypatch.delenv("MLFLOW_RUN_ID")
        sync(run.layout.root, recipe())
        assert (len(client.search_runs([platform])), len(client.search_logged_models([platform]))) == before
        own = client.get_experiment_by_name(recipe().tracking.experiment)
        assert own is None or client.search_runs([own.experiment_id]) == []


@pytest.mark.parametrize("kind", ["of another MLflow", "no id", "deleted", "its parent deleted"])
def test_a_platforms_run_that_cannot_be_written_to_is_not_adopted(
    run: Run, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_stage(run)
    with connect(tracking_uri(run.layout.root, recipe())) as client:
        experiment = client.create_experiment("platform")
        pipeline = client.create_run(experiment)
        task = client.create_run(experiment, tags={"mlflow.parentRunId": pipeline.info.run_id})
        named = {"of another MLflow": "0" * 32, "no id": "../x"}.get(kind, task.info.run_id)
        if "deleted" in kind:
            client.delete_run((task if kind == "deleted" else pipeline).info.run_id)
        monkeypatch.setenv("MLFLOW_RUN_ID", named)
        sync(run.layout.root, recipe())
    assert contents(run.layout.root)["models"]


def test_a_folder_continued_under_another_platforms_run_says_there_where_its_results_are(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_stage(run)
    sync(run.layout.root, recipe())
    with connect(tracking_uri(run.layout.root, recipe())) as client:
        own = client.get_experiment_by_name(recipe().tracking.experiment).experiment_id
        later = client.create_run(client.create_experiment("platform"))
        monkeypatch.setenv("MLFLOW_RUN_ID", later.info.run_id)
        sync(run.layout.root, recipe())
        (parent,) = [one for one in client.search_runs([own]) if "mlflow.parentRunId" not in one.data.tags]
        note = client.get_run(later.info.run_id).data.tags["mlflow.note.content"]
        assert parent.info.run_id in note


def test_it_says_nothing_when_it_makes_its_tables_either(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    run.layout.mlflow_database.unlink()
    first_stage(run)
    sync(run.layout.root, recipe())
    assert capfd.readouterr() == ("", "")


def test_secrets_of_a_uri_are_never_shown(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuch://me:s3cret@tracking.invalid/x")
    with pytest.raises(TrackingError) as caught:
        sync(run.layout.root, recipe())
    shown = f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"
    assert "s3cret" not in shown
    assert "tracking.invalid" in shown


def test_a_server_gets_its_bare_address_and_prints_nothing(
    run: Run, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)
    asked: list[tuple[str, str | None]] = []
    with _listening(asked) as port:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:s3cret@127.0.0.1:{port}")
        with pytest.raises(TrackingError) as caught:
            sync(run.layout.root, recipe())
    assert asked
    assert all(sent == "Basic " + base64.b64encode(b"me:s3cret").decode() for _, sent in asked)
    assert "s3cret" not in f"{caught.value!r}{capfd.readouterr()}"
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


@contextmanager
def _listening(asked: list[tuple[str, str | None]]) -> Iterator[int]:
    """A server that notes who asks, as whom, and refuses. Yields its port."""

    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_error(403)

        def log_message(self, *arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()


def test_ui_command_keeps_the_uri_off_the_command_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://u:p@h/db")
    command = ui_command(run.layout.root, recipe(), port=5001)
    assert command.address == "http://127.0.0.1:5001"
    assert "u:p" not in " ".join(command.arguments)
    assert "u:p" not in repr(command)
    assert command.environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql://u:p@h/db"
    assert "--allowed-hosts" in ui_command(run.layout.root, recipe(), host="0.0.0.0").arguments
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://u:p@mlflow.example")
    with pytest.raises(UserError, match=r"on a server already; open https://\*\*\*@mlflow"):
        ui_command(run.layout.root, recipe())


def test_the_environment_names_the_server_unless_the_recipe_does(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert tracking_uri(run.layout.root, recipe()) == "http://elsewhere"
    assert tracking_uri(run.layout.root, recipe("http://named")) == "http://named"
