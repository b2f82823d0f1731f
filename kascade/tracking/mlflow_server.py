"""Which MLflow, reached quietly: the run's own sqlite file or any server by URI, with secrets kept secret."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kascade.errors import Fault, KascadeError, UserError
from kascade.recipe.schema import Recipe
from kascade.storage.layout import RunLayout

_LOUD = ("mlflow", "alembic")  # both announce every table they make
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


class TrackingError(KascadeError):
    """MLflow could not be reached, or refused. The run's folder holds everything: sync again later."""


def tracking_uri(run: Path, recipe: Recipe) -> str:
    """The recipe's, else MLFLOW_TRACKING_URI, else a sqlite file in the run's folder."""
    named = recipe.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return named or _sqlite(RunLayout(run))


def _sqlite(layout: RunLayout) -> str:
    return f"sqlite:///{layout.mlflow_database.resolve()}"


def redact(text: str) -> str:
    """`text` with `user:password@` of every URI in it taken out."""
    return _CREDENTIALS.sub("***@", text)


@contextmanager
def connect(uri: str) -> Iterator[Any]:
    """An `MlflowClient` at `uri`. Whatever goes wrong inside is a TrackingError without credentials."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from requests import RequestException  # type: ignore[import-untyped]

    levels = {name: logging.getLogger(name).level for name in _LOUD}
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield MlflowClient(tracking_uri=uri)
    except (MlflowException, RequestException) as error:
        # `from None`: the original may carry the URI with its password into a traceback
        raise TrackingError(f"MLflow at {redact(uri)}: {redact(str(error))}") from None
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def experiment_id(client: Any, layout: RunLayout, recipe: Recipe, uri: str) -> str:
    """The recipe's experiment, made where it is missing (artifacts beside the run's own database)."""
    found = client.get_experiment_by_name(recipe.tracking.experiment)
    if found is not None:
        return str(found.experiment_id)
    own = uri == _sqlite(layout)
    location = layout.mlflow_artifacts.resolve().as_uri() if own else None
    return str(client.create_experiment(recipe.tracking.experiment, artifact_location=location))


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
    arguments = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    if host not in ("127.0.0.1", "localhost"):
        arguments += ["--allowed-hosts", f"{host}:{port},localhost:{port}"]
    environment = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    return UiCommand(tuple(arguments), environment, f"http://{host}:{port}")
