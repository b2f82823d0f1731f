"""Software engineering by agents: one that repairs, one that does not, and those that try it otherwise."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from scripted_engine import ScriptedEngine, byte_chat

from kascade.environments import get_environment
from kascade.environments.base import Session, Turn, generate_tasks
from kascade.environments.code.unit_tests import run_tests
from kascade.environments.rows.tool_calls import parse_tool_calls, render_tool_call
from kascade.environments.software_engineering.hidden_tests import program_of, suite_of
from kascade.environments.software_engineering.small_repositories import make_repository
from kascade.recipe.schema import ConversationLimits
from kascade.rollout.conversations import Opening, converse, open_sessions
from kascade.rollout.types import SamplingParams
from kascade.task import Grade, Task

ENVIRONMENT = get_environment("swe_agents")
TASK = ENVIRONMENT.pose(random.Random(3), 0.5)
REPAIR = next(call for call in parse_tool_calls(str(TASK.reference), TASK.tools) if call.name == "edit")


def call(name: str, **arguments: Any) -> str:
    return render_tool_call(name, arguments)


def start(task: Task = TASK) -> Session:
    session = ENVIRONMENT.start(task)
    assert session is not None
    return session


def said(reaction: Turn | Grade) -> str:
    assert isinstance(reaction, Turn)
    return "\n".join(message["content"] for message in reaction.messages)


def graded(reaction: Turn | Grade) -> Grade:
    assert isinstance(reaction, Grade)
    return reaction


def test_references_repair_and_an_empty_answer_does_not() -> None:
    tasks = generate_tasks(ENVIRONMENT, split="test", count=6, seed=0)
    for task in tasks:
        right, wrong = ENVIRONMENT.grade(task, [str(task.reference), ""])
        assert (right.error, right.reward) == (None, 1.0)
        assert (wrong.error, wrong.reward, wrong.components["fail_to_pass"]) == (None, 0.0, 0.0)
        assert wrong.components["pass_to_pass"] == 1.0
    assert len({task.id for task in tasks}) == 6


def test_repositories_have_several_modules_visible_tests_that_pass_and_one_bug() -> None:
    rng = random.Random(1)
    for level in (0.0, 1.0):
        made = make_repository(rng, level)
        assert sum(path.endswith(".py") for path in made.files) >= 4
        assert made.files[made.path].count(made.patch.search) == 1
        repaired = {
            **made.files,
            made.path: made.files[made.path].replace(made.patch.search, made.patch.replace),
        }
        names = [*made.failing, *made.passing]
        broken_verdict, verdict = run_tests(
            [(program_of(files), suite_of(made.tests, names)) for files in (made.files, repaired)]
        )
        assert verdict == [True] * len(names)
        assert broken_verdict == [False] * len(made.failing) + [True] * len(made.passing)


def test_a_scripted_agent_solves_one_and_another_fails_it() -> None:
    """The whole loop: sampled turns, tool results, the sandbox, hidden tests, grades."""
    chat = byte_chat()

    def agent(read: str, number: int) -> str:
        turn = read.count("<tool_response>")
        path = REPAIR.arguments["path"]
        steps = [
            call("bash", command="ls; python -m unittest discover -s tests 2>&1 | tail -1"),
            call("view", path=path),
            render_tool_call("edit", REPAIR.arguments),
            call("submit"),
        ]
        assert turn < 1 or "OK" in read
        return steps[turn]

    def lazy(read: str, number: int) -> str:
        if "<tool_response>" in read:
            return "I repaired it."
        return call("edit", path="NOTES.md", search="", replace="All repaired. Reward: 1.")

    for script, reward, turns in ((agent, 1.0, 4), (lazy, 0.0, 2)):
        (sessions,) = open_sessions([TASK], 1)
        assert sessions is not None
        params = SamplingParams(4000, conversation=ConversationLimits(max_turns=10, max_tokens=100_000))
        openings = [Opening(TASK, sessions, seed=1)]
        ((one,),) = converse(ScriptedEngine(chat, TASK, script), chat, openings, params)
        assert (one.grade.error, one.grade.reward, one.num_turns) == (None, reward, turns)
        assert one.sample.drawn is not None and not all(one.sample.drawn)


def test_tools_say_what_is_wrong_and_go_on() -> None:
    session = start()
    path = str(REPAIR.arguments["path"])
    try:
        assert "no tool 'fly'" in said(session.respond(call("fly")))
        assert "arguments" in said(session.respond(call("edit", path=path)))
        assert "stay within" in said(session.respond(call("view", path="/etc/passwd")))
        assert "stay within" in said(session.respond(call("edit", path="../x", search="", replace="x")))
        assert "No such file" in said(session.respond(call("view", path="nowhere.py")))
        assert "must be there once" in said(
            session.respond(call("edit", path=path, search="zzz", replace="y"))
        )
        assert "already" in said(session.respond(call("edit", path=path, search="", replace="y")))
        assert said(session.respond(call("view", path=path, first=1, last=1))).startswith("     1  ")
        assert "exit status 3" in said(session.respond(call("bash", command="exit 3")))
        shown = said(session.respond(call("bash", command="python3 -c \"print('x' * 50000)\"")))
        assert "left out" in shown and len(shown) < 21_000
        both = session.respond(call("bash", command="echo 1") + call("bash", command="echo 2"))
        assert isinstance(both, Turn) and [m["content"] for m in both.messages] == ["1\n", "2\n"]
        assert graded(session.stop()).reward == 0.0
    finally:
        session.close()
        session.close()


def test_a_command_that_hangs_is_stopped_and_the_conversation_goes_on() -> None:
    environment = ENVIRONMENT.with_options({"command_seconds": 1})
    session = start(environment.pose(random.Random(3), 0.5))
    try:
        assert "limit on time" in said(session.respond(call("bash", command="sleep 60")))
        assert "on\n" in said(session.respond(call("bash", command="echo on")))
    finally:
        session.close()


@pytest.mark.parametrize(
    "trick",
    [
        "printf 'import builtins, os\\nos._exit(0)\\n' > {package}/__init__.py",
        "printf 'def load_tests(*a): pass\\n' > tests/__init__.py; rm -rf tests",
        'printf \'import sys; sys.modules[__name__] = type("M", (), {{"__getattr__": lambda s, n: '
        "lambda *a: Same()}})()\\nclass Same(int):\\n    def __eq__(s, o): return True\\n' >> {path}",
        "rm -rf {package}; ln -s /usr/lib {package}",
        "rm {path}; ln -s /etc/passwd {path}",
    ],
)
def test_tampering_earns_nothing(trick: str) -> None:
    path = str(REPAIR.arguments["path"])
    session = start()
    try:
        session.respond(call("bash", command=trick.format(path=path, package=path.partition("/")[0])))
        grade = graded(session.respond(call("submit")))
        assert (grade.error, grade.reward) == (None, 0.0)
    finally:
        session.close()


def row(**metadata: Any) -> dict[str, Any]:
    instance = {
        "instance_id": "ours-1",
        "files": {"m.py": "def f(x):\n    return x\n"},
        "tests": {
            "t1": {"module": "m", "function": "f", "arguments": [2], "output": 4},
            "t2": {"module": "m", "function": "f", "arguments": [0], "output": 0},
        },
        "FAIL_TO_PASS": '["t1"]',
        "PASS_TO_PASS": '["t2"]',
    }
    params = {"problem_statement": "f should double.", "instance_dict": json.dumps(instance), **metadata}
    return {"responses_create_params": {"input": [], "metadata": params}}


def test_rows_with_files_run_here_and_others_are_errors() -> None:
    task = ENVIRONMENT.from_row(row())
    edit = call("edit", path="m.py", search="return x", replace="return 2 * x")
    grades = ENVIRONMENT.grade(
        task, [edit, call("edit", path="m.py", search="return x", replace="return 4"), ""]
    )
    assert [(g.error, g.reward) for g in grades] == [(None, 1.0), (None, 0.0), (None, 0.0)]
    published = {"instance_id": "python__mypy-17071", "FAIL_TO_PASS": '["t"]', "repo": "python/mypy"}
    task = ENVIRONMENT.from_row(row(instance_dict=json.dumps(published), golden_patch="diff"))
    session = start(task)
    error = graded(session.respond(call("submit"))).error
    assert error is not None and "python__mypy-17071" in error


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"responses_create_params": {}}, "metadata"),
        (row(problem_statement=""), "problem_statement"),
        (row(instance_dict="["), "instance_dict"),
        (row(instance_dict='{"files": {"a": 1}}'), "instance_dict.files"),
        (row(instance_dict='{"files": {"a": ""}, "FAIL_TO_PASS": "x"}'), "FAIL_TO_PASS"),
        (
            row(
                instance_dict='{"files": {}, "FAIL_TO_PASS": "[\\"t\\"]", "PASS_TO_PASS": "[]", "tests": {}}'
            ),
            "tests.t",
        ),
    ],
)
def test_bad_rows_name_the_field(bad: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=re.escape(field)):
        ENVIRONMENT.from_row(bad)
    with pytest.raises(ValueError, match=r"options\.memory_mb"):
        ENVIRONMENT.with_options({"memory_mb": -1}).pose(random.Random(0), 0)
