"""The components that a cascade is made of, and what runs through all of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Self

Component = Callable[..., Any]
Task = Any  # a kfp PipelineTask
# What the steps import when they are called, and what is slow to load.
LIBRARY = (
    *(f"kascade.stages.{name}" for name in ("steps", "preflight", "train", "evaluate", "recover", "settle")),
    *("kascade.tracking.report", "kascade.tracking.card", "mlflow"),
)
Value = Any  # a kfp channel: the value it stands for is known when the pipeline runs


@dataclass(frozen=True, slots=True)
class Steps:
    """The components that the DAG is made of, one a step (see `components/`).

    library: modules that their bodies import; whoever runs many tasks may load them beforehand.
    """

    preflight: Component
    train: Component
    evaluate: Component
    verdict: Component
    recover: Component
    launch: Component
    keep: Component
    settle: Component
    finish: Component
    report: Component
    library: tuple[str, ...] = ()

    @classmethod
    def shipped(cls) -> Self:
        """Those of `components/`."""
        names = [field.name for field in fields(cls) if field.name != "library"]
        components = {name: getattr(importlib.import_module(f"components.{name}"), name) for name in names}
        return cls(**components, library=LIBRARY)


@dataclass(frozen=True, slots=True)
class Thread:
    """What runs through all steps of a run: its folder, and what tells a changed recipe from the compiled."""

    run: Value
    revision: Value

    def fingerprint(self, compiled: str) -> str:
        """That of a step, from the one of its compiled recipe. kfp puts the revision in when it runs."""
        return f"{compiled}.{self.revision}"
