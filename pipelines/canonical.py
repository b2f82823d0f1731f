"""One recipe, one text: the names inside a compiled pipeline follow from its structure alone.

kfp numbers components of the same name in the order of a hash map, so that two compilations differ and
the cache, whose keys hold these names, misses. Here components are numbered in the order in which a
reader of the DAG meets them, and executors that are equal (one step used in many stages) become one,
which also makes the package several times smaller.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]

Spec = dict[str, Any]
COMPONENT, EXECUTOR = "comp-", "exec-"
CHANNEL = "pipelinechannel--"  # what kfp calls an input of a condition


def canonicalise(message: Any, platforms: Any) -> None:
    """Rename components and executors of a PipelineSpec, and of its PlatformSpec, in place.

    Raises ValueError when two uses of a step need different executors: kfp merges executors of the same
    name wrongly then, so such steps must have different names.
    """
    spec = json_format.MessageToDict(message)
    components: Spec = spec["components"]
    names = _component_names(spec["root"]["dag"], components, spec["deploymentSpec"]["executors"])
    for dag in [spec["root"]["dag"], *(c["dag"] for c in components.values() if "dag" in c)]:
        for task in dag["tasks"].values():
            task["componentRef"]["name"] = names[task["componentRef"]["name"]]
    spec["components"] = {new: components[old] for old, new in names.items()}
    for dag in [spec["root"]["dag"], *(c["dag"] for c in spec["components"].values() if "dag" in c)]:
        _name_tasks(dag, spec["components"])
    _drop_unused(spec["root"]["dag"], spec["components"])
    _share_executors(spec)
    _rewrite(message, spec)
    pods = json_format.MessageToDict(platforms)
    for platform in pods.get("platforms", {}).values():
        _share_pods(platform["deploymentSpec"])
    _rewrite(platforms, pods)


def _name_tasks(dag: Spec, components: Spec) -> None:
    """Call a stage's steps by stage, attempt and step: so Kubeflow's API and `kubectl` list them.

    kfp's own names ("evaluate-3") say neither. A condition's inputs are called after the task that made them,
    and kfp.local finds the task by that name: they follow.
    """
    names = {old: _task_name(old, task) for old, task in dag["tasks"].items()}
    for task in dag["tasks"].values():
        for key, given in list(task.get("inputs", {}).get("parameters", {}).items()):
            made = given.get("taskOutputParameter", {}).get("producerTask")
            if key.startswith(CHANNEL) and made in names and names[made] != made:
                called = key.replace(f"{CHANNEL}{made}-", f"{CHANNEL}{names[made]}-", 1)
                _call_input(task, key, called, components)
    for task in dag["tasks"].values():
        if "dependentTasks" in task:
            task["dependentTasks"] = sorted(names[name] for name in task["dependentTasks"])
        for given in task.get("inputs", {}).get("parameters", {}).values():
            if made := given.get("taskOutputParameter"):
                made["producerTask"] = names[made["producerTask"]]
    for output in dag.get("outputs", {}).get("parameters", {}).values():
        source = output["valueFromParameter"]
        source["producerSubtask"] = names[source["producerSubtask"]]
    dag["tasks"] = {names[old]: task for old, task in dag["tasks"].items()}


def _call_input(task: Spec, old: str, new: str, components: Spec) -> None:
    """Give an input of a nested DAG another name: here, in its condition, and wherever it is handed on."""
    inputs = task["inputs"]["parameters"]
    inputs[new] = inputs.pop(old)
    policy = task.get("triggerPolicy", {})
    if "condition" in policy:
        policy["condition"] = policy["condition"].replace(f"'{old}'", f"'{new}'")
    component = components[task["componentRef"]["name"]]
    defined = component["inputDefinitions"]["parameters"]
    defined[new] = defined.pop(old)
    for inner in component["dag"]["tasks"].values():
        given = inner.get("inputs", {}).get("parameters", {})
        for value in given.values():
            if value.get("componentInputParameter") == old:
                value["componentInputParameter"] = new
        if old in given:
            _call_input(inner, old, new, components)


def _drop_unused(dag: Spec, components: Spec) -> None:
    """Take out what a branch is handed and does not use.

    kfp hands it all that the branches around it looked at, and Argo's object holds each of these four times.
    """
    for task in dag["tasks"].values():
        component = components[task["componentRef"]["name"]]
        if "dag" not in component:
            continue
        _drop_unused(component["dag"], components)
        condition = task.get("triggerPolicy", {}).get("condition", "")
        used = {
            given.get("componentInputParameter")
            for inner in component["dag"]["tasks"].values()
            for given in inner.get("inputs", {}).get("parameters", {}).values()
        }
        for name in list(task.get("inputs", {}).get("parameters", {})):
            if name.startswith(CHANNEL) and name not in used and f"'{name}'" not in condition:
                del task["inputs"]["parameters"][name]
                del component["inputDefinitions"]["parameters"][name]


def _task_name(name: str, task: Spec) -> str:
    """ "if-rl-recover-1-evaluate" for a step that is given a stage as a constant, else its own name."""
    given = task.get("inputs", {}).get("parameters", {})
    said = {key: value["runtimeValue"]["constant"] for key, value in given.items() if "runtimeValue" in value}
    if "stage" not in said:
        return name
    step = _numberless(_stem_of(task))
    attempt = said.get("attempt", f"recover-{said['round']:g}" if "round" in said else "")
    if step in ("recover", "launch"):
        step = ""
    return "-".join(filter(None, (said["stage"].replace("_", "-"), attempt, step)))


def _stem_of(task: Spec) -> str:
    """A step's component, without the pods that it runs on."""
    return str(task["componentRef"]["name"]).removeprefix(COMPONENT).split("-")[0]


def _rewrite(message: Any, content: Spec) -> None:
    message.Clear()
    json_format.ParseDict(content, message)


def _component_names(root: Spec, components: Spec, executors: Spec) -> dict[str, str]:
    """New names of all components, depth first; tasks of one DAG by name, which kfp gives in order.

    Equal steps share one: Kubeflow stores what a component's pods get once for each name.
    """
    seen: Counter[str] = Counter()
    names: dict[str, str] = {}
    shared: dict[str, str] = {}  # by what the component is

    def visit(dag: Spec) -> None:
        for _, task in sorted(dag["tasks"].items(), key=lambda item: _natural(item[0])):
            old = task["componentRef"]["name"]
            if old in names:
                continue
            stem = _stem(components[old], old)
            step = _step(components[old], executors)
            if step in shared:
                names[old] = shared[step]
                continue
            seen[stem] += 1
            names[old] = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
            if step:
                shared[step] = names[old]
            if "dag" in components[old]:
                visit(components[old]["dag"])

    visit(root)
    return names


def _step(component: Spec, executors: Spec) -> str:
    """What a step is, its executor included, apart from kfp's numbers; "" for a DAG."""
    label = component.get("executorLabel")
    whole = [{**component, "executorLabel": _numberless(label)}, executors[label]] if label else ""
    return json.dumps(whole, sort_keys=True) if whole else ""


def _stem(component: Spec, name: str) -> str:
    """A component's name without kfp's numbers; a step's is that of its executor."""
    label = component.get("executorLabel")
    return _numberless(label.replace(EXECUTOR, COMPONENT, 1) if label else name)


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts "train-10" after "train-9"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def _share_executors(spec: Spec) -> None:
    """One executor a step, named after it."""
    executors: Spec = spec["deploymentSpec"]["executors"]
    shared: Spec = {}
    for component in spec["components"].values():
        if "executorLabel" not in component:
            continue
        label = _numberless(component["executorLabel"])
        _add(shared, label, executors[component["executorLabel"]])
        component["executorLabel"] = label
    spec["deploymentSpec"]["executors"] = {label: shared[label] for label in sorted(shared)}


def _share_pods(deployment: Spec) -> None:
    """The same for what Kubernetes learns about executors."""
    shared: Spec = {}
    for old, pod in deployment.get("executors", {}).items():
        _add(shared, _numberless(old), pod)
    deployment["executors"] = {label: shared[label] for label in sorted(shared)}


def _numberless(label: str) -> str:
    return re.sub(r"(-\d+)+$", "", label)


def _add(shared: Spec, label: str, value: Spec) -> None:
    if json.dumps(shared.setdefault(label, value), sort_keys=True) != json.dumps(value, sort_keys=True):
        raise ValueError(f"{label}: two uses of this step have different executors")
