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
from kfp import dsl
from toy_recipe import toy_recipe

from components.document import component_names, drifted
from kascade.cluster import place
from kascade.cluster.worker import Work
from kascade.errors import UserError
from kascade.guard.approval import ask, questions
from kascade.recipe.run_form import pack
from kascade.recipe.schema import Recipe
from kascade.steps import begin, steps
from kascade.storage.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
NAMES = component_names()
FIELDS = "recipe model data scale budget overrides start_from stages approve"
FORM = dict.fromkeys(FIELDS.split(), "")
ABOUT = {"stage": "sft", "checkpoint": "c", "parent": "p"}


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
    for name in ("begin", "train", "evaluate", "recover", "settle", "retain", "finish", "report"):
        monkeypatch.setattr(steps, name, found.step(name, name))
    monkeypatch.setattr(begin, "begin", found.step("begin", ("b", "r")))
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
    Call("begin", {"stage": "sft", "parent": "p"}, ("sft", "p"), "sft.begin", "begin"),
    Call("train", {"stage": "sft", "parent": "p"}, ("sft", "p"), "sft.train", "train"),
    Call("evaluate", {**ABOUT, "attempt": "train"}, ("sft", "c", "p"), "sft.train.evaluate", "evaluate"),
    Call("recover", {**ABOUT, "round": 2}, ("sft", 2, "c", "p"), "sft.recover-2", "recover"),
    Call("settle", {"stage": "sft", "parent": "p"}, ("sft", "p"), "sft.settle", "settle"),
    Call("retain", {"checkpoint": "c"}, ("c",), "retain", "retain"),
    Call("finish", {"checkpoint": "c"}, ("c",), "finish", "finish"),
]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_a_body_calls_its_step_and_says_how_it_went(call: Call, recorder: Recorder, tmp_path: Path) -> None:
    component = getattr(importlib.import_module(f"components.{call.name}"), call.name)
    returned = component.python_func(run=str(tmp_path), **call.arguments)
    assert recorder.calls == [(call.name, (str(tmp_path), *call.called))]
    assert returned == call.answer
    state = json.loads(RunFolder(tmp_path).step_state(call.step).read_text())
    assert state["state"] == "succeeded"


def test_preflight_puts_the_runs_id_into_its_folder(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.preflight import preflight
    from kascade.cluster.ready import job_faults

    def begun_by(*given: Any, plan: str, run_id: str) -> Any:
        return recorder.step("begin", (given, plan, run_id))(*given)

    monkeypatch.setattr(begin, "begin", begun_by)
    plan = dsl.Markdown(uri=str(tmp_path / "plan.md"))
    given = (f"{tmp_path}/7", "{}", ("",) * 9, job_faults)
    begun = preflight.python_func(run=f"{tmp_path}/{{id}}", id="7", compiled="{}", plan=plan, **FORM)
    assert begun == (given, plan.path, "7") and recorder.calls == [("begin", given)]


def test_the_form_answers_what_was_asked_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "preflight", lambda run, job_faults: "base")
    plain = toy_recipe({"name": "a"}).model_dump(mode="json")
    asking = Recipe.model_validate({**plain, "approval": {"before": ["a"]}})
    folder = RunFolder(tmp_path)
    ask(folder, asking, "a", f"file:///c@sha256:{'a' * 64}")

    def fill_in(approve: str) -> None:
        begin.begin(str(tmp_path), pack(asking), (*("",) * 8, approve), lambda recipe: [], run_id="7")

    fill_in("reject a")
    fill_in("a")
    assert [(one.approved, one.by) for one in questions(folder)[0].decisions] == [
        (False, "run form of 7"),
        (True, "run form of 7"),
    ]
    with pytest.raises(UserError, match="nobody was asked about b"):
        fill_in("a; b")
    with pytest.raises(UserError, match="a is both approved and rejected"):
        fill_in("reject a; a")
    assert len(questions(folder)[0].decisions) == 2, "a word that is not clear is not kept"


def test_the_plan_is_on_the_page_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "preflight", lambda run, job_faults: "base")
    packed = pack(toy_recipe({"name": "a", "title": "Polish"}))
    begin.begin(str(tmp_path), packed, ("",) * 9, lambda recipe: [], plan=str(tmp_path / "plan.md"))
    text = (tmp_path / "plan.md").read_text()
    assert "| Polish | base |" in text and "| at worst | all recoveries, looks |" in text


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("report.html", "<h1>Done</h1>", "<h1>Done</h1>"),
        ("preflight.error.json", '{"<"}', "<pre>{&quot;&lt;"),
    ],
)
def test_the_report_is_on_the_page_of_the_run(
    name: str, text: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no run began: then it is preflight's error."""
    from components.report import report

    (tmp_path / name).write_text(text)
    monkeypatch.setattr(steps, "report", lambda run: str(tmp_path / name))
    page, scores = dsl.HTML(uri=str(tmp_path / "page.html")), dsl.Metrics(uri=str(tmp_path / "scores"))
    assert report.python_func(run=str(tmp_path), id="7", page=page, scores=scores) == str(tmp_path / name)
    assert shown in Path(page.path).read_text() and scores.metadata == {}


def test_a_launch_hands_its_pod_settings_on(recorder: Recorder, tmp_path: Path) -> None:
    from kfp import dsl

    from components.launch import launch

    config = dsl.TaskConfig(node_selector={"gpu": "h100"})
    launch.python_func(run=str(tmp_path), attempt="train", task_config=config, **ABOUT)
    ((_, (work, given)),) = recorder.calls
    assert work == Work(str(tmp_path), "sft", "train", "c", "p")
    assert given["node_selector"] == {"gpu": "h100"}


def test_a_component_runs_by_itself(tmp_path: Path) -> None:
    """`finish` through kfp.local, in a process of its own, as Kubeflow's components are tested."""
    code = (
        "import sys; from pathlib import Path; from kfp import local; from components.finish import finish\n"
        "from kascade.storage.run_folder import RunFolder\n"
        "c = 'file:///c@sha256:0'; RunFolder(Path(sys.argv[1])).write_retained(c, 'file:///d@sha256:1')\n"
        "local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[1])\n"
        "assert finish(run=sys.argv[1], checkpoint=c).output == 'file:///d@sha256:1'"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT, capture_output=True)
