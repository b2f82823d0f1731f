"""What Kubeflow's driver refuses of a task when it gathers its inputs, read off the compiled pipeline.

Facts: KFP 2.17, backend/src/v2/driver/resolve.go (inputs, their types, outputs of DAGs) and driver.go
(names), compiler/argocompiler/dag.go (exit tasks). Argo and Kubernetes have the last word on names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from compiled import Spec, component_of, dags, is_conditional

ARGUMENT_LIMIT = 131_072  # bytes of one argument of a Linux process: a driver gets components as arguments
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
CONDITION = re.compile(r"inputs\.parameter_values\['([^']+)'\] == (?:true|false)")
KINDS = {str: "STRING", bool: "BOOLEAN", int: "NUMBER_INTEGER", float: "NUMBER_INTEGER"}
CHANNEL = "pipelinechannel--"  # a value that stands inside the text of another input, for the launcher
EXIT = "ALL_UPSTREAM_TASKS_COMPLETED"


def refused(spec: Spec) -> list[str]:
    """Everything that the backend would refuse, in words; empty for a pipeline that it takes."""
    found = [f"the form's {name} has no default" for name in _without_default(spec)]
    for dag, tasks in dags(spec):
        within = spec["root"] if dag == "root" else spec["components"][dag]
        for name, task in tasks.items():
            found += [f"{dag}/{name}: {what}" for what in _task_refused(spec, within, tasks, name, task)]
    return found


def _without_default(spec: Spec) -> list[str]:
    form = spec["root"]["inputDefinitions"]["parameters"]
    return [name for name, one in form.items() if one.get("defaultValue") is None]


def _task_refused(spec: Spec, within: Spec, tasks: Spec, name: str, task: Spec) -> Iterator[str]:
    if not NAME.fullmatch(name):
        yield "no name for Argo"
    if not task.get("taskInfo", {}).get("name"):
        yield "has no title"
    component = component_of(spec, task)
    wanted, given = _inputs(component), task.get("inputs", {}).get("parameters", {})
    for key, value in given.items():
        if key.startswith(CHANNEL) and "executorLabel" in component:
            wanted = {**wanted, key: {"parameterType": _given(spec, within, tasks, value)[0]}}
        if key not in wanted:
            yield f"is given {key}, which it does not take"
            continue
        kind, problem = _given(spec, within, tasks, value)
        right = wanted[key]["parameterType"]
        if problem or kind != right:
            yield f"{key}: {problem or f'{kind} where {right} is wanted'}"
    for key, one in wanted.items():
        if key not in given and not one.get("isOptional"):
            yield f"is not given {key}"
    yield from _trigger_refused(task, tasks, wanted, "executorLabel" in component)


def _trigger_refused(task: Spec, tasks: Spec, wanted: Spec, container: bool) -> Iterator[str]:
    trigger = task.get("triggerPolicy", {})
    if condition := trigger.get("condition"):
        asked = CONDITION.fullmatch(condition)
        if asked is None or wanted.get(asked[1], {}).get("parameterType") != "BOOLEAN":
            yield f"asks no bool of its inputs: {condition}"
    if trigger.get("strategy") == EXIT and (not container or len(task["dependentTasks"]) != 1):
        yield "is no step that ends one task"
    if missing := set(task.get("dependentTasks", [])) - tasks.keys():
        yield f"waits for {missing}, which are not beside it"


def _inputs(component: Spec) -> Spec:
    return dict(component.get("inputDefinitions", {}).get("parameters", {}))


def _given(spec: Spec, within: Spec, tasks: Spec, value: Any) -> tuple[str, str]:
    """The type of what a task is given, and what is wrong with where it comes from."""
    if "componentInputParameter" in value:
        outer = _inputs(within).get(value["componentInputParameter"])
        return (outer["parameterType"], "") if outer else ("", "comes from no input of the DAG around it")
    if "taskOutputParameter" in value:
        source = value["taskOutputParameter"]
        return _produced(spec, tasks, source["producerTask"], source["outputParameterKey"])
    return KINDS[type(value["runtimeValue"]["constant"])], ""


def _produced(spec: Spec, tasks: Spec, producer: str, key: str) -> tuple[str, str]:
    """The type of a task's output: of a DAG's, which the driver follows down to a container."""
    if producer not in tasks:
        return "", f"comes from {producer}, which is not beside it"
    if is_conditional(tasks[producer]):
        return "", f"comes from {producer}, which may be left out"
    component = component_of(spec, tasks[producer])
    if "dag" in component:
        inner = component["dag"].get("outputs", {}).get("parameters", {}).get(key, {})
        source = inner.get("valueFromParameter")
        if source is None:
            return "", f"comes from {producer}, which hands on no {key}"
        subtasks = component["dag"]["tasks"]
        return _produced(spec, subtasks, source["producerSubtask"], source["outputParameterKey"])
    made = component.get("outputDefinitions", {}).get("parameters", {}).get(key)
    return (made["parameterType"], "") if made else ("", f"comes from {producer}, which makes no {key}")
