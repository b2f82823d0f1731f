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


def canonicalise(message: Any, platforms: Any) -> None:
    """Rename components and executors of a PipelineSpec, and of its PlatformSpec, in place.

    Raises ValueError when two uses of a step need different executors: kfp merges executors of the same
    name wrongly then, so such steps must have different names.
    """
    spec = json_format.MessageToDict(message)
    components: Spec = spec["components"]
    names = _component_names(spec["root"]["dag"], components)
    for dag in [spec["root"]["dag"], *(c["dag"] for c in components.values() if "dag" in c)]:
        for task in dag["tasks"].values():
            task["componentRef"]["name"] = names[task["componentRef"]["name"]]
            if "dependentTasks" in task:
                task["dependentTasks"].sort()
    spec["components"] = {new: components[old] for old, new in names.items()}
    _share_executors(spec)
    _rewrite(message, spec)
    pods = json_format.MessageToDict(platforms)
    for platform in pods.get("platforms", {}).values():
        _share_pods(platform["deploymentSpec"])
    _rewrite(platforms, pods)


def _rewrite(message: Any, content: Spec) -> None:
    message.Clear()
    json_format.ParseDict(content, message)


def _component_names(root: Spec, components: Spec) -> dict[str, str]:
    """New names of all components, depth first; tasks of one DAG by name, which kfp gives in order."""
    seen: Counter[str] = Counter()
    names: dict[str, str] = {}

    def visit(dag: Spec) -> None:
        for _, task in sorted(dag["tasks"].items(), key=lambda item: _natural(item[0])):
            old = task["componentRef"]["name"]
            if old in names:
                continue
            stem = _stem(components[old], old)
            seen[stem] += 1
            names[old] = stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"
            if "dag" in components[old]:
                visit(components[old]["dag"])

    visit(root)
    return names


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
    """The same for what Kubernetes is told about executors."""
    shared: Spec = {}
    for old, pod in deployment.get("executors", {}).items():
        _add(shared, _numberless(old), pod)
    deployment["executors"] = {label: shared[label] for label in sorted(shared)}


def _numberless(label: str) -> str:
    return re.sub(r"(-\d+)+$", "", label)


def _add(shared: Spec, label: str, value: Spec) -> None:
    if json.dumps(shared.setdefault(label, value), sort_keys=True) != json.dumps(value, sort_keys=True):
        raise ValueError(f"{label}: two uses of this step have different executors")
