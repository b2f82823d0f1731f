"""How large Argo's Workflow object of a compiled pipeline gets: its specification, and its status at the end.

Counted as KFP 2.17's compiler writes it (backend/src/v2/compiler/argocompiler) and Argo 4.0 packs it: JSON
without spaces, where text inside text is escaped once more; the status's nodes as sorted JSON, gzip, base64.
Argo refuses more than 1 MiB.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
from typing import Any

from backend_model import Execution, executions
from compiled import component_of, dags, is_dag

Pairs = list[tuple[str, str]]
FACTOR = 1.045  # against two upstream workflows such a count was 4 to 5 % too small
NODES_FACTOR = (
    1.33  # real nodes say more than those here: an independent count of an earlier shape gave a third more
)
FIXED = 12_000  # the driver's, launcher's and executor's own templates, metadata, labels
LAUNCHER = "/kfp-launcher/launch --pipeline_name --run_id --execution_id --executor_input --component_spec"


def text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)


def digest(value: Any) -> str:
    return hashlib.sha256(text(value).encode()).hexdigest()


class Workflow:
    """The Workflow object of a compiled pipeline."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.executors = spec["deploymentSpec"]["executors"]
        pods = spec.get("platforms", {}).get("kubernetes", {})
        self.pods = pods.get("deploymentSpec", {}).get("executors", {})

    def _container(self, component: dict[str, Any]) -> dict[str, Any]:
        return dict(self.executors[component["executorLabel"]]["container"])

    def _pod(self, component: dict[str, Any]) -> dict[str, Any]:
        return dict(self.pods.get(component["executorLabel"], {}))

    def spec_bytes(self) -> int:
        """Arguments of the workflow (components, containers, pods) and a template for each DAG."""
        arguments: dict[str, str] = {"components-root": text(self.spec["root"])}
        for name, component in self.spec["components"].items():
            if "dag" in component:
                arguments[f"components-{name}"] = text(component)
                continue
            container = self._container(component)
            arguments[f"components-{digest(container)}"] = text(component)
            arguments[f"implementations-{digest(container)}"] = text(container)
            if pod := self._pod(component):
                arguments[f"kubernetes-{name}"] = text(pod)
        parameters = [{"name": name, "value": value} for name, value in arguments.items()]
        templates = [self._template(name, tasks) for name, tasks in dags(self.spec)]
        body = {"arguments": {"parameters": parameters}, "templates": templates}
        return round(len(text(body).encode()) * FACTOR) + FIXED

    def _template(self, name: str, tasks: dict[str, Any]) -> dict[str, Any]:
        """A DAG's own template: two tasks of Argo for each of its tasks."""
        inner = [one for key, task in tasks.items() for one in self._argo_tasks(key, task)]
        inputs = [{"name": "parent-dag-id"}, {"name": "condition", "value": ""}]
        return {"name": name, "inputs": {"parameters": inputs}, "dag": {"tasks": inner}, "outputs": {}}

    def _argo_tasks(self, name: str, task: dict[str, Any]) -> list[dict[str, Any]]:
        component = component_of(self.spec, task)
        reference, depends = (
            task["componentRef"]["name"],
            " && ".join(f"{other}.Succeeded" for other in task.get("dependentTasks", [])),
        )
        given = [
            ("task", text(task)),
            ("task-name", name),
            ("parent-dag-id", "{{inputs.parameters.parent-dag-id}}"),
        ]
        if "dag" in component:
            given.append(("component", f"{{{{workflow.parameters.components-{reference}}}}}"))
            template, dag_driver = reference, "system-dag-driver"
            handed = [("parent-dag-id", f"{{{{tasks.{name}-driver.outputs.parameters.execution-id}}}}")]
            handed.append(("condition", ""))
        else:
            key = digest(self._container(component))
            given += [
                (kind, f"{{{{workflow.parameters.{kind}-{key}}}}}")
                for kind in ("components", "implementations")
            ]
            given.append(("kubernetes-config", f"{{{{workflow.parameters.kubernetes-{reference}}}}}"))
            template, dag_driver = "system-container-executor", "system-container-driver"
            outputs = f"{{{{tasks.{name}-driver.outputs.parameters"
            handed = [
                ("pod-spec-patch", f"{outputs}.pod-spec-patch}}}}"),
                ("cached-decision", f"{outputs}.cached}}}}"),
            ]
        return [
            {
                "name": f"{name}-driver",
                "template": dag_driver,
                "arguments": _parameters(given),
                "depends": depends,
            },
            {
                "name": name,
                "template": template,
                "arguments": _parameters(handed),
                "depends": f"{name}-driver.Succeeded",
            },
        ]

    def status_bytes(self, root: Execution, *, retries: bool = True) -> int:
        """The nodes of what ran, packed.

        retries: KFP's default puts a Retry node above every node but skipped ones, with its inputs, outputs.
        """
        draw = random.Random(0)
        nodes: list[dict[str, Any]] = []
        for one in executions(root):
            for node in self._nodes(one, draw):
                nodes.append(node)
                if retries and node["phase"] != "Skipped":
                    nodes.append({**node, **_identity(draw, node["displayName"]), "type": "Retry"})
        packed = gzip.compress(text({node["id"]: node for node in nodes}).encode(), 9, mtime=0)
        return round(len(base64.b64encode(packed)) * NODES_FACTOR)

    def _nodes(self, one: Execution, draw: random.Random) -> list[dict[str, Any]]:
        """Those of one task."""
        task = one.task
        component = component_of(self.spec, task)
        inputs = [
            ("task", text(task)),
            ("component", text(component)),
            ("parent-dag-id", str(draw.randrange(9999))),
        ]
        if is_dag(self.spec, task):
            driver = _node(
                draw, f"{one.name}-driver", "Pod", inputs, [("execution-id", "1234"), ("condition", "true")]
            )
            kind = "Skipped" if one.state == "CANCELED" else "DAG"
            return [driver, _node(draw, one.name, kind, [("parent-dag-id", "1234"), ("condition", "")], [])]
        container, pod = self._container(component), self._pod(component)
        inputs += [("container", text(container)), ("kubernetes-config", text(pod))]
        patch = ("pod-spec-patch", self._patch(task, component, container, pod))
        return [
            _node(draw, f"{one.name}-driver", "Pod", inputs, [patch, ("cached-decision", "false")]),
            _node(draw, one.name, "DAG", [patch, ("cached-decision", "false")], []),
            _node(draw, "executor", "Pod", [patch], []),
        ]

    def _patch(self, task: Any, component: Any, container: Any, pod: Any) -> str:
        """What the driver tells Argo about the executor's pod."""
        reference = "file:///kascade/runs/name/0f2c8c1e/checkpoints/sft/train-0123456789ab@sha256:" + "0" * 64
        filled = {
            name: given["runtimeValue"]["constant"] if "runtimeValue" in given else reference
            for name, given in task.get("inputs", {}).get("parameters", {}).items()
        }
        executor_input = {
            "inputs": {"parameterValues": filled},
            "outputs": component.get("outputDefinitions", {}),
        }
        main = {
            "name": "main",
            "image": container["image"],
            "command": [*LAUNCHER.split(), text(executor_input), text(component), *container["command"]],
            "args": container.get("args", []),
            "resources": container.get("resources", {}),
            "volumeMounts": pod.get("pvcMount", []),
        }
        return text({"containers": [main], "volumes": pod.get("pvcMount", [])})


def _parameters(pairs: Pairs) -> dict[str, Any]:
    return {"parameters": [{"name": name, "value": value} for name, value in pairs]}


def _identity(draw: random.Random, name: str) -> dict[str, Any]:
    """What tells a node from all others; numbers that no packing makes shorter."""
    number = draw.randrange(10**9)
    return {
        "id": f"quickstart-abcde-{number}",
        "name": f"quickstart-abcde.root.{name}.{number}",
        "displayName": name,
    }


def _node(draw: random.Random, name: str, kind: str, inputs: Pairs, outputs: Pairs) -> dict[str, Any]:
    when = f"2026-11-29T{draw.randrange(24):02d}:{draw.randrange(60):02d}:{draw.randrange(60):02d}Z"
    return {
        **_identity(draw, name),
        "type": kind,
        "templateName": f"system-{kind}",
        "templateScope": "local/quickstart-abcde",
        "phase": "Skipped" if kind == "Skipped" else "Succeeded",
        "boundaryID": f"quickstart-abcde-{draw.randrange(10**9)}",
        "startedAt": when,
        "finishedAt": when,
        "progress": "1/1",
        "resourcesDuration": {"cpu": draw.randrange(999), "memory": draw.randrange(9999)},
        "inputs": _parameters(inputs),
        "outputs": {**_parameters(outputs), "exitCode": "0"},
        "children": [f"quickstart-abcde-{draw.randrange(10**9)}"],
        "hostNodeName": "node-1",
    }
