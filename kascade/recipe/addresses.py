"""Addresses in a recipe: which ones will do, and none that holds a secret.

A recipe is copied into run folders, compiled pipelines and MLflow. What must stay secret is named by
environment variables, which are copied nowhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from kascade.errors import holds_secret
from kascade.recipe.checks import CrossCheckError, Problem
from kascade.storage.address import SECRET, TRACKING, WEB, address_problem

REMEDIES = {
    "tracking": "for a server, set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; "
    "for a database with a password, set MLFLOW_TRACKING_URI and leave tracking.uri out",
    "notify": "write the address into an environment variable and name that one: url: env:VARIABLE",
    "options": "write the bare address: a server of an environment is asked without a name or a password",
    "judge": "write the key into an environment variable and name that one: judge.api_key_env",
}
REMEDY = "write the bare address, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or HF_TOKEN)"


def secret_problems(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Every text of a recipe (given as JSON value) that holds a secret in an address."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from secret_problems(part, (*path, key))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from secret_problems(part, (*path, index))
    elif isinstance(value, str) and holds_secret(value):
        yield Problem(path, SECRET, remedy=_remedy(path))


def _remedy(path: tuple[str | int, ...]) -> str:
    return next((remedy for part, remedy in REMEDIES.items() if part in path), REMEDY)


def web_address(address: str | None) -> str | None:
    """For a field that names a judge. Raises CrossCheckError."""
    return _checked(address, WEB, "http://HOST:PORT/v1 or https://HOST/v1", "judge")


def store_address(address: str | None) -> str | None:
    """For a field that names where checkpoints are. Raises CrossCheckError."""
    return _checked(address, ("s3", "file"), "s3://BUCKET/FOLDER or file:///FOLDER", "storage")


def tracking_address(address: str | None) -> str | None:
    """For a field that names an MLflow server, database or folder. Raises CrossCheckError."""
    if address and (":" not in address or address == "databricks"):
        return address  # a folder
    return _checked(address, TRACKING, "http://HOST:PORT, https://HOST or sqlite:////FILE", "tracking")


def _checked(address: str | None, schemes: Collection[str], allowed: str, part: str) -> str | None:
    problem = address_problem(address, schemes) if address is not None else None
    if problem == SECRET:
        raise CrossCheckError([Problem((), SECRET, remedy=_remedy((part,)))])
    if problem is not None:
        raise CrossCheckError([Problem((), f"the address {problem}", allowed)])
    return address


def notify_address(address: str) -> str:
    """For a receiver of notifications: an address, or the reference of one. Raises CrossCheckError."""
    if address.startswith(("env:", "file:/")) and "://" not in address:
        return address
    allowed = "https://HOST/PATH, env:VARIABLE or file:/PATH"
    return _checked(address, WEB, allowed, "notify") or address
