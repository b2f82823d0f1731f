"""Checks of the vLLM server that a recipe samples with."""

from __future__ import annotations

import shutil

from kascade.doctor.subject import Subject
from kascade.errors import Fault, TrainingStopped

ANSWERS_WITHIN_S = 20.0


def vllm_server(subject: Subject) -> list[Fault]:
    """Why the server cannot be used: it does not answer, was started otherwise, or cannot be started."""
    settings = subject.recipe.model.rollout.vllm
    if settings.served is None:
        return []
    where = subject.place("model", "rollout", "vllm", "served")
    if settings.served.python is not None:
        if shutil.which(settings.served.python):
            return []
        remedy = "name the python of the environment in which vllm is installed"
        return [Fault(where, f"{settings.served.python} is no program of this machine", remedy=remedy)]
    from kascade.rollout.vllm_served import server_faults
    from kascade.rollout.weight_sync import Control

    try:
        control = Control(str(settings.served.url).rstrip("/"), ANSWERS_WITHIN_S)
        dtype = None if settings.dtype == "auto" else settings.dtype
        found = server_faults(control, settings.served, dtype)
    except TrainingStopped as error:
        return [Fault(where, str(error))]
    return [Fault(where, fault.what, fault.allowed, fault.remedy) for fault in found]
