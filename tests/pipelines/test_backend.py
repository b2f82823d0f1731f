"""What Kubeflow's backend, which no test here can start, makes of the compiled pipeline's shape."""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from backend_inputs import ARGUMENT_LIMIT, refused
from backend_model import Counts, Execution, Story, counts, executions
from compiled import Spec, compiled, component_of, dags, dependencies, is_conditional, is_dag
from toy_recipe import toy_recipe
from workflow_size import Workflow, digest, text

from kascade.recipe.load import load_recipe

LONGEST = "a" + "_b-c9" * 7 + "_end"  # 40 characters, the most that a name may have
NINE = [{"name": f"stage_{n}"} for n in range(9)]
NUMBERS = ("pods", "nodes", "nodes_with_retries")
LIMIT = 800_000  # bytes of Argo's Workflow object, whose own limit is 1 MiB
NO, ON = "Not begun", ("Train and guard", "Check")
STORIES = {
    "held": lambda stage, title: title in ON,
    "recovered in round 1": lambda stage, title: title not in ("Recovery, round 2", NO),
    "recovered in round 2": lambda stage, title: title != NO,
    "switched off": lambda stage, title: title == (NO if stage.startswith("stage") else "Check"),
    "one off, one held": lambda stage, title: title in ((NO,) if stage == "stage-1-a" else ON),
    "waits at once": lambda stage, title: title == NO,
    "waits after one stage": lambda stage, title: title in (ON if stage == "stage-1-a" else (NO,)),
}


def cascade(spec: Spec, story: str, failing: frozenset[str] = frozenset()) -> Execution:
    return Story(spec, STORIES[story], failing).run(spec["root"]["dag"]["tasks"]["exit-handler-1"])


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return compiled(toy_recipe({"name": "a"}, {"name": "b"}), tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """Nine stages, each on pods of its own and launched as jobs."""
    placements = {
        stage["name"]: {"cpu": str(n + 1), "nodes": 2, "retries": {"count": 2}}
        for n, stage in enumerate(NINE)
    }
    recipe = toy_recipe(*NINE, cluster={"stages": placements})
    return compiled(recipe, tmp_path_factory.mktemp("nine"))


@pytest.fixture(scope="module", params=["quickstart", "nemotron-cascade-2", "toy", "nine"])
def spec(
    request: pytest.FixtureRequest, toy: Spec, nine: Spec, tmp_path_factory: pytest.TempPathFactory
) -> Spec:
    if request.param in ("toy", "nine"):
        return {"toy": toy, "nine": nine}[request.param]
    return compiled(load_recipe(request.param), tmp_path_factory.mktemp("compiled"))


def test_no_value_depends_on_which_branch_was_taken(spec: Spec) -> None:
    """OneOf asks for DAGs' states, which stay open where Kubeflow's cache ended one."""
    assert "valueFromOneof" not in text(spec)


def test_nobody_waits_for_a_branch(spec: Spec) -> None:
    """What waits for a task that is left out is left out with it."""
    for _, tasks in dags(spec):
        branches = {name for name, task in tasks.items() if is_conditional(task)}
        for name, task in tasks.items():
            assert not branches & dependencies(task), name


def test_beside_every_branch_ends_a_container_that_waits_for_what_the_branch_waits_for(spec: Spec) -> None:
    for name, tasks in dags(spec):
        branches = [task for task in tasks.values() if is_conditional(task)]
        waited_for = set[str]().union(*map(dependencies, tasks.values()))
        for branch in branches:
            closing = [
                own
                for own, task in tasks.items()
                if not is_dag(spec, task) and own not in waited_for and _waits_alike(tasks, task, branch)
            ] or [other for other in branches if _is_opposite(other, branch)]
            assert closing, f"{name}: nothing closes {branch['taskInfo']['name']}"


def _is_opposite(one: Spec, other: Spec) -> bool:
    """Whether exactly one of two branches is taken. (The first thing in each is a container.)"""
    conditions = [task["triggerPolicy"]["condition"].rpartition(" == ") for task in (one, other)]
    subjects, values = zip(*((left, right) for left, _, right in conditions), strict=True)
    return len(set(subjects)) == 1 and set(values) == {"true", "false"}


def _waits_alike(tasks: Spec, closing: Spec, branch: Spec) -> bool:
    """Whether a task waits for the last of the branch's dependencies and for nothing that comes after."""
    mine, its = dependencies(closing), dependencies(branch)
    last = its - set[str]().union(*(dependencies(tasks[name]) for name in its))
    return mine <= its and last <= mine


@pytest.mark.parametrize("failing", ["", "stage-1-a/Train", "stage-2-b/Evaluate", "stage-1-a/Settle"])
@pytest.mark.parametrize("story", STORIES)
def test_every_box_of_the_page_is_complete_at_the_end(story: str, failing: str, toy: Spec) -> None:
    """Also where a step failed once and was tried again."""
    root = cascade(toy, story, frozenset(filter(None, [failing])))
    still = [one.title for one in executions(root) if one.state not in ("COMPLETE", "CANCELED")]
    assert not still and root.state == "COMPLETE"


def test_without_a_closing_step_a_box_would_stay_open(tmp_path: Path) -> None:
    """The model can tell: this is what the closing steps are for."""
    spec = compiled(toy_recipe({"name": "a"}), tmp_path)
    for component in spec["components"].values():
        component.get("dag", {}).get("tasks", {}).pop("a-train-verdict", None)
    assert cascade(spec, "held").state == "RUNNING"


@pytest.mark.parametrize(
    ("story", "most"),
    [
        ("held", Counts(14, 23, 44)),
        ("recovered in round 1", Counts(21, 34, 66)),
        ("recovered in round 2", Counts(27, 43, 85)),
        ("switched off", Counts(9, 15, 29)),
        ("waits at once", Counts(9, 15, 29)),
    ],
)
def test_a_stage_takes_few_pods(story: str, most: Counts, toy: Spec) -> None:
    """Its own box, and *Settle* beside it."""
    root = cascade(toy, story)
    both = [counts(child) for child in root.children if child.name in ("stage-1-a", "a-settle")]
    assert Counts(*(sum(getattr(one, name) for one in both) for name in NUMBERS)) == most


def test_the_workflow_object_fits_whatever_is_lost(spec: Spec) -> None:
    """Two recoveries in every stage, with the Retry nodes of Kubeflow's default."""
    workflow = Workflow(spec)
    size = workflow.spec_bytes() + workflow.status_bytes(cascade(spec, "recovered in round 2"))
    assert size <= LIMIT


def test_steps_with_equal_containers_have_equal_inputs(spec: Spec) -> None:
    """Kubeflow keeps components by the hash of their container, and would take one for the other."""
    found: dict[str, set[str]] = defaultdict(set)
    for component in spec["components"].values():
        if label := component.get("executorLabel"):
            container = spec["deploymentSpec"]["executors"][label]["container"]
            found[digest(container)].add(text({**component, "executorLabel": ""}))
    assert {len(same) for same in found.values()} == {1}


@pytest.mark.parametrize(("timeout_s", "count"), [(None, 3), (7200, 3), (None, 100)])
def test_the_time_for_retries_holds_all_tries(timeout_s: int | None, count: int, tmp_path: Path) -> None:
    """Argo counts it from the first try's start, and reads the factor as a whole number.

    What is left of it becomes a pod's deadline, which Kubernetes keeps in 31 bits.
    """
    default = {"retries": {"count": count}} | ({"timeout_s": timeout_s} if timeout_s else {})
    spec = compiled(toy_recipe({"name": "a"}, cluster={"default": default}), tmp_path)
    policies = [
        task["retryPolicy"] for _, tasks in dags(spec) for task in tasks.values() if "retryPolicy" in task
    ]
    assert policies
    for policy in policies:
        assert policy["backoffFactor"] == int(policy["backoffFactor"])
        window = int(policy["backoffMaxDuration"].removesuffix("s"))
        assert 4 * (timeout_s or 30 * 24 * 3600) <= window < 2**31


def test_a_finished_pipeline_is_kept_as_long_as_the_recipe_says(tmp_path: Path) -> None:
    """Kubeflow's own defaults for success and failure would win over the one for both."""
    spec = compiled(toy_recipe({"name": "a"}, cluster={"keep_finished_s": 86400}), tmp_path)
    config = text(spec["platforms"]["kubernetes"])
    assert len(re.findall(r'"[a-zA-Z]*[tT]tl[a-zA-Z]*":86400', config)) == 3


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def test_nothing_in_a_tasks_constants_is_filled_in_by_argo_or_kubernetes(spec: Spec) -> None:
    """`{{$.` is Kubeflow's own."""
    for _, tasks in dags(spec):
        for name, task in tasks.items():
            assert not [s for s in strings(task) if re.search(r"\$\$|\$\(|\{\{(?!\$\.)", s)], name
            assert component_of(spec, task)


def test_the_driver_finds_every_input_and_of_the_right_type(spec: Spec) -> None:
    assert refused(spec) == []


def test_the_longest_names_are_taken(tmp_path: Path) -> None:
    """A workflow's name is a label's value: 63 characters, of which Argo adds six."""
    spec = compiled(toy_recipe({"name": LONGEST}, name=LONGEST), tmp_path)
    assert refused(spec) == []
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,55}[a-z0-9])?", spec["pipelineInfo"]["name"])


def test_what_a_driver_gets_as_arguments_is_within_linuxs_limit(spec: Spec) -> None:
    """Half of it: inside an argument, text is escaped once more."""
    for part in (*spec["components"].values(), *spec["deploymentSpec"]["executors"].values()):
        assert len(text(part).encode()) < ARGUMENT_LIMIT / 2


def test_every_retry_is_a_whole_number_of_seconds(spec: Spec) -> None:
    """Kubeflow hands Argo the seconds alone."""
    for _, tasks in dags(spec):
        for task in tasks.values():
            for key, value in task.get("retryPolicy", {}).items():
                assert not key.endswith("Duration") or re.fullmatch(r"[1-9]\d*s", value)


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("type", "BOOLEAN is wanted"),
        ("producer", "is not beside it"),
        ("missing", "is not given parent"),
        ("branch", "may be left out"),
        ("condition", "asks no bool"),
    ],
)
def test_what_the_backend_refuses_is_found(where: str, what: str, toy: Spec) -> None:
    """The check can fail: each of these stops a real run at the task."""
    spec = copy.deepcopy(toy)
    stage = spec["components"]["comp-stage-1-a"]
    branch = stage["dag"]["tasks"]["condition-1"]
    begin = stage["dag"]["tasks"]["a-begin"]["inputs"]["parameters"]
    if where == "type":
        stage["inputDefinitions"]["parameters"]["parent"]["parameterType"] = "BOOLEAN"
    elif where == "producer":
        begin["parent"] = {"taskOutputParameter": {"producerTask": "gone", "outputParameterKey": "Output"}}
    elif where == "missing":
        del begin["parent"]
    elif where == "branch":
        source = {"producerTask": "condition-1", "outputParameterKey": "Output"}
        begin["parent"] = {"taskOutputParameter": source}
    else:
        branch["triggerPolicy"]["condition"] = "inputs.parameter_values['pipelinechannel--run'] == true"
    assert any(what in one for one in refused(spec))
