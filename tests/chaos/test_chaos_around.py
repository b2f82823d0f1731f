"""What stands around a run fails: MLflow and report while they are written, a store, the real command."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from commotion import KILLS, REFUSED, SEED, World, killed_in_a_write, results, stopped_in_its_run
from support.s3_servers import CuttingProxy, Server, moto

import kascade.steps.steps
import kascade.tracking.card
import kascade.tracking.mlflow_sync
import kascade.tracking.promote
import kascade.tracking.report  # noqa: F401 (steps import late; forks find all of it loaded)
from kascade.storage.run_folder import RunFolder

pytest.importorskip("mlflow")
pytestmark = pytest.mark.slow
POINTS = (
    "select runs.name, metrics.key, metrics.step, metrics.value from metrics "
    "join runs on runs.run_uuid = metrics.run_uuid"
)


# MLflow and the report


def show(root: Path) -> None:
    """The step that brings MLflow up to date, and writes the model card and the page."""
    from kascade.steps import steps

    steps.report(str(root))


def shown(run: RunFolder) -> tuple[Counter[Any], Counter[Any], bool]:
    """Metric points in MLflow but for costs, its checkpoints, and whether page and card are whole.

    No run has two points of one metric at one step.
    """
    with closing(sqlite3.connect(run.mlflow_database)) as database:
        found = database.execute(POINTS).fetchall()
        models = Counter(database.execute("select name, status from logged_models").fetchall())
    places = Counter(point[:3] for point in found)
    assert not [place for place, number in places.items() if number > 1]
    points = Counter(point for point in found if not point[1].startswith("cost/"))  # these differ by try
    page = run.report.read_text(encoding="utf-8")
    return points, models, page.rstrip().endswith("</html>") and run.model_card.stat().st_size > 0


def test_killed_while_mlflow_and_the_report_are_written_both_end_whole(world: World) -> None:
    rng = random.Random(SEED)
    world.begin_anew(finished=True)
    started = time.monotonic()
    assert world.command(work=show) == 0, world.said
    length, expected = time.monotonic() - started, shown(world.run)
    assert expected[2]
    kills, rounds = 0, max(2, KILLS // 8)
    for number in range(rounds):
        world.begin_anew(finished=True)
        for _ in range(rng.choice((1, 2))):
            if rng.random() < 0.3:
                before = killed_in_a_write(rng.randrange(1, 25))
                kills += world.command(before, work=show) == -signal.SIGKILL
            else:
                kills += world.killed(rng.uniform(0.1, length), work=show)
        assert world.command(work=show) == 0, (number, world.said)
        found = shown(world.run)
        assert not [(a - b, b - a) for a, b in zip(found[:2], expected[:2], strict=True) if a != b], number
        assert found[2], number
        assert not world.differences(), number
    print(f"{rounds} rounds with MLflow and the report, {kills} kills: both whole, no point twice")


# a store that drops connections


class Bucket:
    """A bucket behind a wire that breaks, and what is in it."""

    def __init__(self, server: Server) -> None:
        import boto3

        keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key}
        address = f"http://127.0.0.1:{server.port}"
        self.client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)

    def clear(self) -> None:
        for one in self.client.list_objects_v2(Bucket="models").get("Contents", []):
            self.client.delete_object(Bucket="models", Key=one["Key"])


def test_a_store_that_drops_connections_costs_time_or_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed: buckets were not tried")
    rng, dropped = random.Random(SEED), [0.0]
    ended: Counter[str] = Counter()
    monkeypatch.setenv("KASCADE_CHECKPOINTS", "s3://models/runs")
    with moto() as server, CuttingProxy(server.port, lambda *_: rng.random() < dropped[0]) as wire:
        for name, value in {**server.environment(wire.port), "KASCADE_S3_ATTEMPTS": "3"}.items():
            monkeypatch.setenv(name, value)
        bucket, caches = Bucket(server), 0

        def tried(share: float, killed: int | None = None) -> int | None:
            dropped[0] = share
            return world.command() if killed is None else world.command(killed_in_a_write(killed))

        def begin_anew() -> None:
            nonlocal caches
            bucket.clear()
            world.begin_anew()
            caches += 1
            monkeypatch.setenv("KASCADE_CACHE", str(tmp_path / f"cache {caches}"))

        begin_anew()
        assert tried(0.0) == 0, world.said
        expected = results(world.run)
        for number in range(max(3, KILLS // 8)):
            begin_anew()
            for _ in range(rng.choice((1, 2))):
                code = tried(rng.choice((0.02, 0.1, 0.5, 1.0)), rng.choice((None, None, 20, 60)))
                if code not in (0, -signal.SIGKILL):
                    assert "TRACEBACK" not in world.said, world.said
                ended[{0: "went on", -signal.SIGKILL: "killed"}.get(code or 0, "refused")] += 1
            assert tried(0.0) == 0, (number, world.said)
            assert results(world.run) == expected, number
        print(f"a store that drops connections: {wire.cuts} cut, {dict(ended)}; then the same bits")
        assert wire.cuts


# the real command


RECIPE = """kascade: 1
name: two
model: {source: "builtin://mini-nemotron-h"}
threads: 1
stages:
  - {kind: sft, name: sft, steps: 3, save_every: 1, batch_size: 8, max_tokens: 512,
     data: &d [{source: {environment: mcqa, count: 40}}]}
  - {kind: mopd, name: mopd, steps: 2, prompts_per_step: 4, rollouts_per_prompt: 2, validation_tasks: 4,
     sampling: {max_new_tokens: 16}, min_teacher_gap: 0, teachers: {knowledge: sft}, data: *d}
benchmarks: [{name: knowledge, source: {environment: mcqa}, tasks: 6, sampling: {max_new_tokens: 8}}]
guard:
  weak_exams: warn
  screen_samples: 1
  confirm_samples: 1
  recovery: {steps: 1, optimizer: {warmup_steps: 1}}
"""


def verb(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kascade.cli", *arguments, "--quiet"]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def ends(*arguments: str) -> tuple[int, str]:
    process = verb(*arguments)
    said = process.communicate(timeout=600)[0]
    return process.returncode, said


def kill(process: subprocess.Popen[str], rng: random.Random) -> None:
    """SIGKILL to the command alone, to one of its processes, or to all of them."""
    try:
        first = psutil.Process(process.pid)
        family = [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:  # it was faster: then there is nothing left to continue
        process.communicate(timeout=120)
        return
    chosen = rng.choice(([first], [rng.choice(family)], family))
    for member in chosen:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.communicate(timeout=120)


def test_the_real_command_killed_anywhere_is_finished_by_resume(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    recipe, whole = tmp_path / "two.yaml", tmp_path / "whole"
    recipe.write_text(RECIPE, encoding="utf-8")
    started = time.monotonic()
    code, said = ends("run", str(recipe), "--out", str(whole))
    assert code == 0, said
    length = time.monotonic() - started
    expected = results(RunFolder(whole))
    for number in range(max(1, KILLS // 20)):
        out = tmp_path / f"run {number}"
        process = verb("run", str(recipe), "--out", str(out))
        time.sleep(rng.uniform(0.2, 0.9) * length)
        kill(process, rng)
        again = (
            ("resume", str(out))
            if (out / "recipe.yaml").exists()
            else ("run", str(recipe), "--out", str(out))
        )
        code, said = ends(*again)
        assert code == 0, said
        assert _alike(results(RunFolder(out)), out) == _alike(expected, whole), number
        assert (out / "report.html").exists()


def test_a_folder_in_use_is_refused_by_the_real_command_and_its_run_ends_as_it_would(tmp_path: Path) -> None:
    recipe, out = tmp_path / "two.yaml", tmp_path / "run"
    recipe.write_text(RECIPE, encoding="utf-8")
    process = verb("run", str(recipe), "--out", str(out))
    while not (out / "recipe.yaml").exists():  # before it, the folder is not known as a run's
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.005)
    with stopped_in_its_run(process.pid, RunFolder(out)):
        code, said = ends("run", str(recipe), "--out", str(out))
    assert code == REFUSED and "another run" in said
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said


def _alike(found: dict[str, str], root: Path) -> list[str]:
    """Weights, answers, curves and scores: records also hold the folder's own address."""
    addressed = ("manifest.json", "location.json")
    parts = ("verdicts/", "outcomes/")
    return sorted(
        f"{name} {digest}"
        for name, digest in found.items()
        if not name.endswith(addressed) and not name.startswith(parts)
    )
