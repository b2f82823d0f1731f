"""Each component alone: its layout, its README, what its body calls, and one run of it through kfp.local."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.document import component_names, drifted
from kascade.cluster import place
from kascade.cluster.worker import Work
from kascade.stages import begin, steps
from kascade.storage.layout import RunLayout

ROOT = Path(__file__).resolve().parents[2]
NAMES = component_names()
FORM = dict.fromkeys(("recipe", "model", "data", "scale", "budget", "overrides", "start_from", "stages"), "")
ABOUT = {"stage": "sft", "checkpoint": "c", "parent": "p", "fingerprint": "f"}


class Recorder:
    """Stands in for the library's steps: writes down what each was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def step(self, name: str, answer: Any) -> Any:
        def called(*arguments: Any) -> Any:
            self.calls.append((name, arguments))
            return answer

        return called


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    for name in ("train", "evaluate", "verdict", "recover", "settle", "finish", "report"):
        monkeypatch.setattr(steps, name, found.step(name, name))
    monkeypatch.setattr(begin, "begin", found.step("begin", ("b", "r", "v")))
    monkeypatch.setattr(place, "launch_step", found.step("launch", "launched"))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_layout_is_that_of_kubeflows_components(name: str) -> None:
    folder = ROOT / "components" / name
    assert {"component.py", "metadata.yaml", "README.md", "__init__.py"} <= {p.name for p in folder.iterdir()}
    metadata = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
    assert metadata["name"] == name and metadata["stability"] in ("alpha", "beta", "stable")
    assert metadata["dependencies"]["kubeflow"][0]["name"] == "Pipelines"
    module = importlib.import_module(f"components.{name}.component")
    assert metadata["description"] == module.__doc__


def test_readmes_say_what_the_code_says() -> None:
    assert drifted() == []


@pytest.mark.parametrize("name", NAMES)
def test_bodies_are_short(name: str) -> None:
    tree = ast.parse((ROOT / "components" / name / "component.py").read_text(encoding="utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert (function.end_lineno or 0) - function.body[0].lineno < 25


@dataclass(frozen=True)
class Call:
    """A component's arguments, those its step gets after the run, the task's name, and what comes back."""

    name: str
    arguments: dict[str, Any]
    called: tuple[Any, ...]
    step: str
    answer: Any


CALLS = [
    Call(
        "train", {k: ABOUT[k] for k in ("stage", "parent", "fingerprint")}, ("sft", "p"), "sft.train", "train"
    ),
    Call("evaluate", {**ABOUT, "attempt": "train"}, ("sft", "c", "p"), "sft.train.evaluate", None),
    Call("verdict", {**ABOUT, "attempt": "train"}, ("sft", "c", "p"), "sft.train.verdict", "verdict"),
    Call("recover", {**ABOUT, "round": 2}, ("sft", 2, "c", "p"), "sft.recover-2", "recover"),
    Call(
        "settle",
        {"stage": "sft", "candidate": "c", "parent": "p", "fingerprint": "f"},
        ("sft", "c", "p"),
        "sft.settle",
        "settle",
    ),
    Call("finish", {"checkpoint": "c"}, ("c",), "finish", "finish"),
    Call("report", {"id": "7"}, (), "report", "report"),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_a_body_calls_its_step_and_says_how_it_went(call: Call, recorder: Recorder, tmp_path: Path) -> None:
    component = getattr(importlib.import_module(f"components.{call.name}"), call.name)
    returned = component.python_func(run=str(tmp_path), **call.arguments)
    assert recorder.calls == [(call.name, (str(tmp_path), *call.called))]
    assert returned == call.answer
    state = json.loads(RunLayout(tmp_path).task_state(call.step).read_text())
    assert state["state"] == "succeeded"


def test_preflight_puts_the_runs_id_into_its_folder(recorder: Recorder, tmp_path: Path) -> None:
    from components.preflight import preflight

    assert preflight.python_func(run=f"{tmp_path}/{{id}}", id="7", compiled="{}", **FORM) == ("b", "r", "v")
    assert recorder.calls == [("begin", (f"{tmp_path}/7", "{}", ("",) * 8))]


def test_a_launch_hands_its_pod_settings_on(recorder: Recorder, tmp_path: Path) -> None:
    from kfp import dsl

    from components.launch import launch

    config = dsl.TaskConfig(node_selector={"gpu": "h100"})
    launch.python_func(run=str(tmp_path), attempt="train", task_config=config, **ABOUT)
    ((_, (work, given)),) = recorder.calls
    assert work == Work(str(tmp_path), "sft", "train", "c", "p")
    assert given["node_selector"] == {"gpu": "h100"}


def test_a_component_runs_by_itself(tmp_path: Path) -> None:
    """`keep` through kfp.local, in a process of its own, as Kubeflow's components are tested."""
    code = (
        "import sys; from kfp import local; from components.keep import keep\n"
        "local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1])\n"
        "assert keep(checkpoint='file:///c@sha256:0').output == 'file:///c@sha256:0'"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT, capture_output=True)
