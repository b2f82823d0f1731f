"""Addresses that the environment names, looked at before a run starts."""

from __future__ import annotations

import os
from collections.abc import Mapping

from kascade.errors import Fault
from kascade.recipe.addresses import REMEDY
from kascade.storage.address import TRACKING, address_problem

CHECKPOINTS, MLFLOW = "KASCADE_CHECKPOINTS", "MLFLOW_TRACKING_URI"


def environment_faults(environment: Mapping[str, str] = os.environ) -> list[Fault]:
    """What is wrong with the addresses in environment variables that a run uses.

    A password in MLFLOW_TRACKING_URI is fine: it is the way to reach a database that wants one.
    """
    faults = []
    named = environment.get(CHECKPOINTS)
    if named and (problem := address_problem(named, ("s3", "file"))):
        allowed = "s3://BUCKET/FOLDER or file:///FOLDER"
        faults.append(Fault(CHECKPOINTS, f"the address {problem}", allowed, REMEDY))
    named = environment.get(MLFLOW)
    if named and ":" in named and named.partition(":")[0].partition("+")[0] not in TRACKING:
        allowed = "http://HOST:PORT, https://HOST, sqlite:////FILE or postgresql://HOST/DATABASE"
        faults.append(Fault(MLFLOW, "MLflow knows no address of this kind", allowed, "correct or unset it"))
    return faults
