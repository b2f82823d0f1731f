"""Reading a compiled pipeline: its DAGs, tasks and containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kascade.recipe.schema import Recipe
from pipelines.compile import compile_recipe

Spec = dict[str, Any]


def compiled(recipe: Recipe, folder: Path) -> Spec:
    """The pipeline; its second document, what Kubernetes is told, under "platforms"."""
    text = compile_recipe(recipe, folder / "pipeline.yaml").read_text(encoding="utf-8")
    spec, pods = yaml.load_all(text, Loader=yaml.CSafeLoader)
    return {**spec, **pods}


def component_of(spec: Spec, task: Spec) -> Spec:
    return dict(spec["components"][task["componentRef"]["name"]])


def tasks_of(spec: Spec, task: Spec | None = None) -> Spec:
    """The tasks inside the cascade, or inside a task that is a DAG."""
    if task is None:
        task = spec["root"]["dag"]["tasks"]["exit-handler-1"]
    return dict(component_of(spec, task)["dag"]["tasks"])


def is_dag(spec: Spec, task: Spec) -> bool:
    return "dag" in component_of(spec, task)


def is_conditional(task: Spec) -> bool:
    return "condition" in task.get("triggerPolicy", {})


def dags(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """Every DAG by its component's name ("root" for the whole), with its tasks."""
    yield "root", dict(spec["root"]["dag"]["tasks"])
    for name, component in spec["components"].items():
        if "dag" in component:
            yield name, dict(component["dag"]["tasks"])


def dependencies(task: Spec) -> set[str]:
    """The tasks that a task waits for, whether it names them or takes their outputs."""
    given = task.get("inputs", {}).get("parameters", {}).values()
    made = {one["taskOutputParameter"]["producerTask"] for one in given if "taskOutputParameter" in one}
    return made | set(task.get("dependentTasks", []))


def constants(task: Spec) -> Spec:
    parameters = task["inputs"]["parameters"].items()
    return {name: p["runtimeValue"]["constant"] for name, p in parameters if "runtimeValue" in p}


def titles(tasks: Spec) -> dict[str, Spec]:
    """Tasks by the name that a person reads."""
    return {task["taskInfo"]["name"]: task for task in tasks.values()}


def attempts(spec: Spec, stage: str) -> Spec:
    """What stands inside a stage: *Begin* and the two branches behind it, by title."""
    return titles(tasks_of(spec, tasks_of(spec)[stage]))


def guarded(spec: Spec, stage: str) -> Spec:
    """The tasks of a stage behind its switch, by title."""
    return titles(tasks_of(spec, attempts(spec, stage)["Train and guard"]))


def source_of(task: Spec, parameter: str) -> str:
    """Which task an input comes from; "" when it is handed in from outside."""
    given = task["inputs"]["parameters"][parameter]
    return str(given.get("taskOutputParameter", {}).get("producerTask", ""))
