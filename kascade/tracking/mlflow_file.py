"""The run's own MLflow database, whole or not at all: made under another name, then renamed.

MLflow makes its tables in many steps. A kill between two of them leaves a file that no MLflow opens again.
The run's folder holds everything that is in it, so one that cannot be opened is set aside and made anew.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

from kascade.storage.run_folder import RunFolder
from kascade.tracking.mlflow_server import connect

log = logging.getLogger(__name__)
BESIDE = ("-journal", "-wal", "-shm")  # files that sqlite keeps beside a database


def ensure_database(folder: RunFolder) -> None:
    """Let there be a whole database at `folder.mlflow_database`. Raises OSError where none can be written."""
    path = folder.mlflow_database
    if path.exists():
        problem = _problem(path)
        if problem is None:
            return
        log.warning("%s cannot be opened (%s); it is set aside and made again", path, problem)
        set_aside(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.half")
    _remove(half)
    _make(half)
    half.replace(path)
    _remove(half)


def set_aside(folder: RunFolder) -> None:
    """Move the database, with what is beside it, to where damaged files of a run are kept."""
    path, number = folder.mlflow_database, 0
    while (place := folder.damaged / f"{path.name}.{number}").exists():
        number += 1
    place.parent.mkdir(parents=True, exist_ok=True)
    path.rename(place)
    for end in BESIDE:
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).rename(place.with_name(place.name + end))


def _make(path: Path) -> None:
    """Let MLflow make its tables in a file of this name."""
    with connect(f"sqlite:///{path}") as client:
        client.search_experiments()


def _problem(path: Path) -> str | None:
    """Why a database is not whole; None when it is."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True)) as database:
            checked = database.execute("PRAGMA quick_check").fetchall()
            tables = {name for (name,) in database.execute("select name from sqlite_master")}
            if checked != [("ok",)]:
                return "its pages are damaged"
            if any(name.startswith("_alembic_tmp") for name in tables):
                return "it is half made"
            if "alembic_version" not in tables or "experiments" not in tables:
                return "it has no tables of MLflow"
            if not database.execute("select 1 from alembic_version").fetchall():
                return "it is half made"
    except sqlite3.Error as error:
        return str(error)
    return None


def _remove(path: Path) -> None:
    for end in ("", *BESIDE):
        path.with_name(path.name + end).unlink(missing_ok=True)
