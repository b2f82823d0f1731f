"""The run's own MLflow database is whole, or made again; tracking never stops a run."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from support.example_run import BASE, ExampleRun, recipe

from kascade.recipe.schema import Tracking
from kascade.run.context import open_run
from kascade.steps import steps
from kascade.storage.run_folder import RunFolder
from kascade.tracking.mlflow_file import ensure_database
from kascade.tracking.mlflow_sync import sync


def _half_made(path: Path) -> None:
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as database:
        database.execute("create table _alembic_tmp_experiments (a)")


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(4096, len(data), 4096):  # the header of every page but the first
        data[place] ^= 255
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "half made": _half_made,
    "no database": lambda path: path.write_bytes(b"no database at all, but long enough to have a header" * 9),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "flipped": _flipped,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = RunFolder(tmp_path_factory.mktemp("made"))
    ensure_database(folder)
    assert [path.name for path in folder.root.iterdir()] == ["mlflow.db"]
    return folder.mlflow_database.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("how", DAMAGE)
def test_what_cannot_be_opened_is_set_aside_and_made_again(tmp_path: Path, made: bytes, how: str) -> None:
    own = recipe(("sft",)).model_copy(update={"tracking": Tracking()})
    run = ExampleRun(tmp_path / "run", own, tasks=10)
    run.base(BASE)
    run.layout.mlflow_database.write_bytes(made)
    DAMAGE[how](run.layout.mlflow_database)
    damaged = run.layout.mlflow_database.read_bytes()
    sync(run.root, run.recipe)
    assert next(run.layout.damaged.glob("mlflow.db.0")).read_bytes() == damaged
    with sqlite3.connect(run.layout.mlflow_database) as database:
        assert database.execute("select count(*) from runs").fetchone() == (1,)


def test_a_kill_while_it_is_made_leaves_nothing_that_counts(tmp_path: Path) -> None:
    half = tmp_path / "mlflow.db.half"
    _half_made(half)
    ensure_database(RunFolder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_tracking_never_stops_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuch://me:s3cret@h/x")
    own = recipe(("sft",)).model_copy(update={"tracking": Tracking()})
    run = ExampleRun(tmp_path / "run", own, tasks=10)
    run.base(BASE)
    with open_run(str(run.root), "sft.settle", light=True) as opened:
        steps._track(opened)
