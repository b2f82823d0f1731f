"""Secrets by reference: `env:VARIABLE` or `file:/PATH`. Their values are written down nowhere."""

from __future__ import annotations

import os
from pathlib import Path

from kascade.errors import Fault, UserError

ENV, FILE = "env:", "file:"


def secret_problem(reference: str) -> str | None:
    """Why a secret cannot be read here; None where it can."""
    if reference.startswith(ENV):
        name = reference.removeprefix(ENV)
        return None if os.environ.get(name) else f"the environment variable {name} is not set"
    path = Path(reference.removeprefix(FILE))
    try:
        path.read_bytes()
    except (OSError, ValueError) as error:
        return f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
    return None


def read_secret(reference: str, where: str) -> str:
    """The value behind a reference, without white space around it. where: the field or option that named it.

    Raises UserError, which names the reference and never its value.
    """
    if (problem := secret_problem(reference)) is not None:
        remedy = "set it where the step runs; on a cluster, map a secret's key to it with `cluster.secrets`"
        raise UserError(Fault(where, problem, "env:VARIABLE or file:/PATH", remedy))
    if reference.startswith(ENV):
        return os.environ[reference.removeprefix(ENV)].strip()
    return Path(reference.removeprefix(FILE)).read_text(encoding="utf-8", errors="replace").strip()
