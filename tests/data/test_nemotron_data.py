"""The published data of Nemotron-Cascade 2, by the preset's own sources.

The rows are ours, in the layout that the sets' cards and public programs show. They have all columns of the
hub, with null where only other kinds of rows have something.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kascade.doctor.subject import Subject
from kascade.environments import get_environment
from kascade.environments.rows.loading import load_tasks
from kascade.environments.rows.tool_calls import render_tool_call
from kascade.environments.software_engineering.small_repositories import make_repository
from kascade.environments.tools.one_turn_office import WorkplaceAssistant
from kascade.errors import UserError
from kascade.recipe.load import load_recipe
from kascade.recipe.parts import DataSource, Join
from kascade.task import Task

RL, SFT = "hf://nvidia/Nemotron-Cascade-2-RL-data", "hf://nvidia/Nemotron-Cascade-2-SFT-Data"
SUBSETS = {
    *("chat", "conversational_agent", "instruction_following", "math"),
    *("safety", "science", "swe", "terminal_agent"),
}
COLUMNS = (
    *("prompt", "instruction_id_list", "kwargs", "category", "environment_name", "ground_truth"),
    *("expected_answer", "options", "schema_str", "schema_type", "question", "metadata", "pass_rate"),
)


def sources() -> list[DataSource]:
    """Every source of the preset that names a published set, once."""
    recipe = load_recipe("nemotron-cascade-2")
    found = [mix.source for stage in recipe.stages for mix in stage.data]
    found += [benchmark.source for benchmark in recipe.benchmarks]
    texts = dict.fromkeys(one.model_dump_json() for one in found if one.path in (RL, SFT))
    return [DataSource.model_validate_json(text) for text in texts]


def row(asked: str, agent: str, **fields: Any) -> dict[str, Any]:
    """A row as the hub has it: all columns, most of them null."""
    params = {"input": [{"role": "user", "content": asked}], "tools": None, "parallel_tool_calls": None}
    named = {"type": "responses_api_agents", "name": agent}
    return {
        **dict.fromkeys(COLUMNS),
        "responses_create_params": params,
        "agent_ref": named,
        "dataset": "x",
        **fields,
    }


IF_ROW = row(
    "Say hello without a comma.",
    "instruction_following_simple_agent",
    instruction_id_list=["punctuation:no_comma"],
    kwargs=[{"num_words": None, "keyword": None}],
    prompt="Say hello without a comma.",
    id=7,
)
LISTED = row(
    "Which is a metal?\nA: Iron\nB: Wood",
    "mcqa_simple_agent",
    options=[{"A": "Iron"}, {"B": "Wood"}],
    expected_answer="A",
)
IN_TEXT = row(
    "Which one floats?\nA: Iron\nB: Wood\n\nPut the letter in \\boxed{}.",
    "mcqa_simple_agent",
    expected_answer="B",
)
STRUCTURE = row(
    "Give the name as JSON.",
    "structured_outputs_simple_agent",
    schema_str=json.dumps({"type": "object", "properties": {"name": {"type": "string"}}}),
    schema_type="json",
)
PROBLEM = row("What is 2+2?", "math_with_judge_simple_agent", question="What is 2+2?", expected_answer="4")
UNGRADED = row("Nothing to grade by.", "mcqa_simple_agent")


def office_row() -> tuple[dict[str, Any], str]:
    """A task of our own office in the set's form, and the calls that solve it."""
    task = WorkplaceAssistant().pose(random.Random(5), 0.2)
    calls = task.fields["ground_truth"]
    asked = row(
        task.messages[-1]["content"],
        "workbench_simple_agent",
        environment_name="workbench",
        category="workbench_email",
        ground_truth=[
            {"name": one["name"], "arguments": json.dumps(one["arguments"])}
            if not isinstance(one["arguments"], str)
            else one
            for one in calls
        ],
    )
    asked["responses_create_params"]["tools"] = [dict(tool) for tool in task.tools]
    return asked, task.reference or ""


def swe_row() -> tuple[dict[str, Any], dict[str, Any], str]:
    """An issue at top level, as SWE-RL has it; its repository, in a file of its own; calls that solve it."""
    made = make_repository(random.Random(3), 0.3)
    issue = {
        "instance_id": "ours__1",
        "repo": "ours/one",
        "base_commit": "abc",
        "problem_statement": made.statement,
        "golden_patch": "diff",
        "dataset_name": "R2E-Gym/R2E-Gym-Subset",
        "FAIL_TO_PASS": json.dumps(made.failing),
        "PASS_TO_PASS": json.dumps(made.passing),
        "responses_create_params": {"input": [], "tools": None},
        "agent_ref": {"type": "responses_api_agents", "name": "swe_agents_train"},
        "dataset": "x",
    }
    repository = {"instance_id": "ours__1", "files": dict(made.files), "tests": made.tests}
    repair = {"path": made.path, "search": made.patch.search, "replace": made.patch.replace}
    return issue, repository, "\n".join([render_tool_call("edit", repair), render_tool_call("submit", {})])


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Path]:
    """One file a subset."""
    mixed = [LISTED, IN_TEXT, STRUCTURE, office_row()[0], UNGRADED]
    subsets = {
        "IF-RL": [IF_ROW],
        "multi-domain-RL": mixed,
        "MOPD": [PROBLEM, IF_ROW, *mixed],
        "SWE-RL": [swe_row()[0]],
    }
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "<think>\nTwo and two.</think>\n4"},
    ]
    for name in SUBSETS:
        subsets[name] = [{"messages": turns, "domain": name, "source": "ours", "generator": "ours"}]
    for name, rows in subsets.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "repositories.jsonl").write_text(json.dumps(swe_row()[1]) + "\n")
    yield tmp_path


def loaded(source: DataSource, folder: Path) -> list[Task]:
    """The tasks of the preset's source, with the stand-in of its subset in place of the hub's."""
    join = None if source.join is None else Join(path=str(folder / "repositories.jsonl"), on=source.join.on)
    here = source.model_copy(update={"path": str(folder / f"{source.subset}.jsonl"), "join": join})
    return list(load_tasks(get_environment(source.environment), here).tasks)


def rewards(task: Task, *answers: str) -> list[float]:
    grades = get_environment(task.environment).grade(task, answers)
    assert not any(grade.error for grade in grades), grades
    return [grade.reward for grade in grades]


def test_the_preset_names_both_sets_by_their_subsets() -> None:
    found = {(one.path, one.subset, one.environment) for one in sources()}
    assert {subset for path, subset, _ in found if path == SFT} == SUBSETS
    assert {(subset, environment) for path, subset, environment in found if path == RL} == {
        ("IF-RL", "instruction_following"),
        ("multi-domain-RL", "mcqa"),
        ("multi-domain-RL", "workplace_assistant"),
        ("multi-domain-RL", "structured_outputs"),
        ("MOPD", "math_with_judge"),
        ("MOPD", "instruction_following"),
        ("MOPD", "workplace_assistant"),
        ("MOPD", "mcqa"),
        ("MOPD", "structured_outputs"),
        ("SWE-RL", "swe_agents"),
    }


def test_every_source_finds_its_own_rows_and_grades_them(stand_in: Path) -> None:
    office = office_row()[1]
    answers = {
        "instruction_following": ("Hello there", "Hello, there"),
        "mcqa": None,
        "structured_outputs": ('{"name": "Ada"}', '{"name": 3}'),
        "workplace_assistant": (office, "I did it."),
        "math_with_judge": ("\\boxed{4}", "\\boxed{5}"),
        "swe_agents": (swe_row()[2], "I give up."),
    }
    for source in sources():
        tasks = loaded(source, stand_in)
        if source.path == SFT:
            (task,) = tasks
            assert task.thinking and task.reference == "Two and two.</think>\n4"
            assert task.messages[-1]["content"] == "2+2?"
            continue
        assert {task.environment for task in tasks} == {source.environment}
        if source.environment == "mcqa":
            assert [rewards(task, "\\boxed{A}", "\\boxed{B}") for task in tasks] == [[1.0, 0.0], [0.0, 1.0]]
            continue
        (task,) = tasks
        right, wrong = answers[source.environment] or ("", "")
        assert rewards(task, right, wrong) == [1.0, 0.0], source


def test_rows_of_nemo_gyms_own_form_join_their_repository_too(stand_in: Path) -> None:
    issue, _, right = swe_row()
    names = ("instance_id", "problem_statement", "base_commit")
    instance = {name: issue[name] for name in ("FAIL_TO_PASS", "PASS_TO_PASS", "repo")}
    metadata = {**{name: issue[name] for name in names}, "instance_dict": json.dumps(instance)}
    params = {"input": [], "metadata": metadata}
    gym = {"responses_create_params": params, "agent_ref": issue["agent_ref"], "dataset": "x"}
    (stand_in / "SWE-RL.jsonl").write_text(json.dumps(gym) + "\n")
    (source,) = [one for one in sources() if one.environment == "swe_agents"]
    (task,) = loaded(source, stand_in)
    assert rewards(task, right) == [1.0]


def test_rows_without_anything_to_grade_by_are_passed_over_and_repositories_are_missed(
    stand_in: Path, tmp_path: Path
) -> None:
    (source,) = [one for one in sources() if one.environment == "mcqa" and one.subset == "MOPD"]
    here = source.model_copy(update={"path": str(stand_in / "MOPD.jsonl")})
    elsewhere = load_tasks(get_environment("mcqa"), here).elsewhere
    assert elsewhere["demonstrations"] == 1 and elsewhere["structured_outputs"] == 1
    recipe = load_recipe("nemotron-cascade-2", {"swe_agentic_rl": {"name": "swe_agentic_rl"}})
    swe = next(one for one in sources() if one.environment == "swe_agents")
    assert swe.join is not None and not Path(swe.join.path).exists()
    subject = Subject(recipe, out=tmp_path / "run")
    found = [told for reading, told in subject.rows if reading.source.environment == "swe_agents"]
    assert [
        isinstance(told, UserError) and "swe_repositories.jsonl does not exist" in str(told) for told in found
    ] == [True]


def test_a_users_own_rows_take_the_place_of_a_published_set(tmp_path: Path) -> None:
    rows = tmp_path / "quiz.jsonl"
    rows.write_text(json.dumps(LISTED) + "\n")
    recipe = load_recipe("nemotron-cascade-2", data={"mcqa": str(rows)})
    own = [mix.source for stage in recipe.stages for mix in stage.data if mix.source.environment == "mcqa"]
    assert {source.path for source in own} == {str(rows)}
    assert [len(loaded_here(source)) for source in own] == [1] * len(own)


def loaded_here(source: DataSource) -> list[Task]:
    return list(load_tasks(get_environment(source.environment), source).tasks)
