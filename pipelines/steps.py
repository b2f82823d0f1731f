"""The components that a cascade is made of."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Self

Component = Callable[..., Any]
Task = Any  # a kfp PipelineTask
# What the steps import when they are called, and what is slow to load.
LIBRARY = (
    *(f"kascade.steps.{name}" for name in ("steps", "settle", "retain", "pages", "consider")),
    *("kascade.doctor.preflight", "kascade.exams.evaluate"),
    *("kascade.stages.train", "kascade.stages.recover"),
    *("kascade.tracking.report", "kascade.tracking.card", "mlflow"),
)
Value = Any  # a kfp channel: the value it stands for is known when the pipeline runs


@dataclass(frozen=True, slots=True)
class Steps:
    """The components that the DAG is made of, one a step (see `components/`).

    library: modules that their bodies import; whoever runs many tasks may load them beforehand.
    """

    consider: Component
    examine: Component
    unchanged: Component
    preflight: Component
    begin: Component
    skip: Component
    train: Component
    evaluate: Component
    verdict: Component
    recover: Component
    launch: Component
    settle: Component
    retain: Component
    finish: Component
    report: Component
    library: tuple[str, ...] = ()

    @classmethod
    def shipped(cls) -> Self:
        """Those of `components/`."""
        names = [field.name for field in fields(cls) if field.name != "library"]
        components = {name: getattr(importlib.import_module(f"components.{name}"), name) for name in names}
        return cls(**components, library=LIBRARY)
