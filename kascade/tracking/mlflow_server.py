"""Which MLflow, reached quietly: the run's own sqlite file or any server by URI, with secrets kept secret."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from kascade.errors import Fault, KascadeError, UserError, redact
from kascade.recipe.schema import Recipe
from kascade.storage.run_folder import RunFolder

LONGEST_REASON = 300  # characters of what a library or a server says
LATER = "the run's folder holds everything, and the next step writes what is missing"
_LOUD = ("mlflow", "alembic")  # both announce every table they make
_RETRIES = "3"  # of a request, after 2, 4 and 8 s: MLflow's own 7 would hold every stage for minutes
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}


class TrackingError(KascadeError):
    """MLflow could not be reached, or refused. The run's folder holds everything: sync again later."""


def tracking_uri(run: Path, recipe: Recipe) -> str:
    """The recipe's, else MLFLOW_TRACKING_URI, else a sqlite file in the run's folder."""
    named = recipe.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return named or _sqlite(RunFolder(run))


def _sqlite(layout: RunFolder) -> str:
    return f"sqlite:///{layout.mlflow_database.resolve()}"


def is_own(layout: RunFolder, uri: str) -> bool:
    """Whether an address is that of the run's own database."""
    return uri == _sqlite(layout)


@contextmanager
def connect(uri: str) -> Iterator[Any]:
    """An `MlflowClient` at `uri`. Whatever goes wrong inside is a TrackingError without credentials.

    MLflow prints addresses of servers. It gets them bare, and a user's name and password by environment.
    """
    os.environ.update(_QUIET)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", _RETRIES)
    uri, credentials = _apart(uri)
    from alembic.util.exc import CommandError
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    levels = {name: logging.getLogger(name).level for name in _LOUD}
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    before = {name: os.environ.get(name) for name in credentials}
    os.environ.update(credentials)
    try:
        yield MlflowClient(tracking_uri=uri)
    except (MlflowException, RequestException, SQLAlchemyError, CommandError) as error:
        raise TrackingError(_refused(uri, error)) from None
    except (OSError, ValueError, ImportError) as error:
        # `from None`: the original may carry the URI with its password into a traceback
        raise TrackingError(_refused(uri, error)) from None
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _refused(uri: str, error: Exception) -> str:
    """What was found at an address, in one line, and what to do."""
    why = " ".join(redact(str(error)).split()).replace("Traceback (most recent call last):", "")
    why = why if len(why) <= LONGEST_REASON else f"{why[:LONGEST_REASON]}..."
    if isinstance(error, ImportError):
        remedy = "install that database's driver, or name another address"
    elif "revision" in why:
        remedy = "use the version of MLflow that made this database, or name another address"
    else:
        remedy = "check that an MLflow server or database is there, and its name and password"
    return f"MLflow at {redact(uri)}: {type(error).__name__}: {why}. To do: {remedy}; {LATER}"


def _apart(uri: str) -> tuple[str, dict[str, str]]:
    """The bare address of a server, and the variables by which MLflow takes the name and password in it."""
    if not uri.startswith(("http://", "https://")):
        return uri, {}  # a database's password travels in its address
    split = urlsplit(uri)
    user, separator, host = split.netloc.rpartition("@")
    if not separator:
        return uri, {}
    name, _, password = user.partition(":")
    found = {"MLFLOW_TRACKING_USERNAME": unquote(name), "MLFLOW_TRACKING_PASSWORD": unquote(password)}
    return split._replace(netloc=host).geturl(), found


def experiment_id(client: Any, layout: RunFolder, recipe: Recipe, uri: str) -> str:
    """The recipe's experiment, made where it is missing (artifacts beside the run's own database)."""
    found = client.get_experiment_by_name(recipe.tracking.experiment)
    if found is not None:
        return str(found.experiment_id)
    location = layout.mlflow_artifacts.resolve().as_uri() if is_own(layout, uri) else None
    return str(client.create_experiment(recipe.tracking.experiment, artifact_location=location))


SQLITE = "sqlite:///"
# A page for one reader needs none of the eight processes that MLflow keeps for jobs of its own.
ONE_READER = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
RUN_TAG, STAGE_TAG = "kascade.run", "kascade.stage"
# asked without MLflow, whose client takes seconds to load
PARENT_RUN = """
    SELECT runs.experiment_id, runs.run_uuid FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid
    WHERE tags.key = :tag AND tags.value = :id
    AND NOT EXISTS (SELECT 1 FROM tags AS other WHERE other.run_uuid = runs.run_uuid AND other.key = :stage)
"""


@dataclass(frozen=True, slots=True)
class UiCommand:
    """How to open MLflow: run `arguments` with `environment` added, then browse to `address`."""

    arguments: tuple[str, ...]
    environment: dict[str, str] = field(repr=False)  # may hold a database password: not on a command line
    address: str


def ui_command(run: Path, recipe: Recipe, host: str = "127.0.0.1", port: int = 5000) -> UiCommand:
    """MLflow's server on the run's database.

    For a `host` others reach it by, MLflow answers 403 to names it was not told: they are given to
    `--allowed-hosts`. Raises UserError when tracking goes to a server, which has its own address.
    """
    uri = tracking_uri(run, recipe)
    if uri.startswith(("http://", "https://")):
        raise UserError(Fault("tracking.uri", f"runs are on a server already; open {redact(uri)}"))
    arguments = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    arguments += ["--host", host, "--port", str(port)]
    if host not in ("127.0.0.1", "localhost"):
        arguments += ["--allowed-hosts", f"{host}:{port},localhost:{port}"]
    environment = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true", **ONE_READER}
    return UiCommand(tuple(arguments), environment, f"http://{host}:{port}")


def run_page(run: Path, recipe: Recipe, address: str) -> str:
    """The address of the run's own page under MLflow's; MLflow's own where its database has no such run."""
    folder, uri = RunFolder(run), tracking_uri(run, recipe)
    path = Path(uri.removeprefix(SQLITE))
    if not uri.startswith(SQLITE) or not path.is_file() or not folder.tracking_id.is_file():
        return address
    known = folder.tracking_id.read_text(encoding="utf-8").strip()
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute(PARENT_RUN, {"tag": RUN_TAG, "id": known, "stage": STAGE_TAG}).fetchone()
    except sqlite3.Error:  # of another version of MLflow, or being written
        return address
    return f"{address}/#/experiments/{found[0]}/runs/{found[1]}" if found else address
