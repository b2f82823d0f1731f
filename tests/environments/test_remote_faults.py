"""A server that fails masks the rollout: nothing is lost, nothing is done twice, and no error is a reward."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from gym_server import GymServer

from kascade.doctor.checks import HERE, examine
from kascade.doctor.rows import check_data
from kascade.doctor.subject import Subject
from kascade.environments import domain_of, get_environment
from kascade.environments.base import Turn
from kascade.environments.remote.environment import RemoteEnvironment
from kascade.environments.rows.tool_calls import render_tool_call
from kascade.recipe.load import load_recipe
from kascade.recipe.parts import DataSource
from kascade.task import Grade, Task

ADD = {"type": "function", "name": "add", "parameters": {"properties": {"number": {"type": "integer"}}}}
ROW = {
    "responses_create_params": {"input": [{"role": "user", "content": "Add 2 and 3."}], "tools": [ADD]},
    "expected": 5,
    "agent_ref": {"name": "a_server_that_nobody_knows"},
}
RIGHT = [render_tool_call("add", {"number": 2}), render_tool_call("add", {"number": 3}), "It is 5."]


def environment(server: GymServer, **options: Any) -> RemoteEnvironment:
    given = {"url": server.url, "backoff_s": 0.01, "timeout_s": 2.0, **options}
    found = get_environment("nemo_gym").with_options(given)
    assert isinstance(found, RemoteEnvironment)
    return found


def play(found: RemoteEnvironment, answers: list[str]) -> Grade:
    task = found.from_row(ROW)
    session = found.start(task)
    assert session is not None
    session.open()
    for answer in answers:
        said = session.respond(answer)
        if isinstance(said, Grade):
            return said
        assert isinstance(said, Turn)
    return session.stop()


def test_nothing_is_wrong_and_the_total_is_rewarded() -> None:
    with GymServer() as server:
        assert play(environment(server), RIGHT) == Grade(1.0, {"expected": 5.0, "right": 1.0})
        assert play(environment(server), RIGHT[:1]).reward == 0.0
        assert server.asked["/add"] == 3


@pytest.mark.parametrize("act", [500, 502, 503, 429, "cut"])
@pytest.mark.parametrize("path", ["/seed_session", "/verify"])
def test_what_may_be_asked_again_is_asked_again(path: str, act: Any) -> None:
    with GymServer({path: [act, act]}) as server:
        assert play(environment(server), RIGHT).reward == 1.0
        assert server.asked[path] == 3 and server.asked["/add"] == 2


def test_a_tool_is_never_called_twice_for_one_call() -> None:
    """The answer was lost after the server had acted: nobody can know, so the rollout is masked."""
    with GymServer({"/add": ["cut"]}) as server:
        grade = play(environment(server), RIGHT)
        assert grade.error is not None and "cut" in grade.error
        assert server.asked["/add"] == 1 and sum(server.totals.values()) == 2


@pytest.mark.parametrize(
    ("path", "acts", "says"),
    [
        ("/verify", [500] * 9, "500"),
        ("/verify", ["garbage"], "not JSON"),
        ("/verify", ["empty"], "no number"),
        ("/verify", ["infinite"], "outside reward_range"),
        ("/verify", ["lost"], "404"),
        ("/verify", [3.0], "within 2 s"),
        ("/seed_session", [400], "400"),
        ("/add", [3.0], "within 2 s"),
    ],
)
def test_a_failure_masks_and_says_what_failed(path: str, acts: list[Any], says: str) -> None:
    with GymServer({path: acts}) as server:
        grade = play(environment(server), RIGHT)
    assert grade.error is not None and says in grade.error and grade.reward == 0.0


def test_what_a_tool_refuses_is_read_by_the_policy() -> None:
    with GymServer({"/add": [422]}) as server:
        found = environment(server)
        session = found.start(found.from_row(ROW))
        assert session is not None and session.open() is None
        said = session.respond(RIGHT[0])
        assert isinstance(said, Turn) and said.messages[0]["content"] == '{"detail": "no"}'


def test_a_server_killed_in_the_middle_masks_every_conversation_with_it() -> None:
    with GymServer() as server:
        found = environment(server)
        sessions = [found.start(found.from_row(ROW)) for _ in range(8)]
        found.open_all([one for one in sessions if one is not None])
        server.stop()
        started = time.monotonic()
        said = found.respond_all([(one, RIGHT[0]) for one in sessions if one is not None])
        assert time.monotonic() - started < 10
    assert [isinstance(one, Grade) and one.error is not None for one in said] == [True] * 8


def test_many_conversations_at_once_are_kept_apart() -> None:
    with GymServer() as server:
        found = environment(server, conversations=128)
        tasks: list[Task] = [found.from_row(ROW) for _ in range(128)]
        sessions = [one for task in tasks if (one := found.start(task)) is not None]
        found.open_all(sessions)
        for answer in RIGHT:
            said = found.respond_all([(one, answer) for one in sessions])
        grades = [one for one in said if isinstance(one, Grade)]
        assert [(one.reward, one.error) for one in grades] == [(1.0, None)] * 128
        assert server.asked["/add"] == 256 and set(server.totals.values()) == {5}


def test_the_rate_limit_holds_for_all_conversations_together() -> None:
    with GymServer() as server:
        found = environment(server, requests_per_second=100.0)
        started = time.monotonic()
        found.grade(found.from_row(ROW), ["It is 5."] * 10)  # 20 requests
        assert time.monotonic() - started >= 0.19


def test_an_unreachable_server_is_named_before_a_run() -> None:
    with GymServer() as server:
        found = environment(server)
        assert found.needs() == []
    (problem,) = found.needs()
    assert "cannot be reached" in problem


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "give one of url, command, image, package"),
        ({"url": "http://h", "package": "mcqa"}, "give one of"),
        ({"url": "http://u:secret@h"}, "url"),
        ({"url": "ftp://h"}, "url"),
        ({"url": "http://h", "reward_range": [1, 1]}, "reward_range"),
        ({"url": "http://h", "speed": 1}, "speed"),
    ],
)
def test_options_are_checked(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        get_environment("nemo_gym").with_options({**options, "domain": "games"})


def test_a_started_server_that_dies_says_so() -> None:
    found = get_environment("nemo_gym").with_options({"command": ["false"], "start_timeout_s": 5.0})
    (problem,) = found.needs()
    assert "exit code 1" in problem
    found = get_environment("nemo_gym").with_options({"command": ["no-such-program"]})
    assert "cannot be started" in found.needs()[0]


def test_rows_are_not_blamed_for_a_server_that_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**ROW, "expected": number}) + "\n" for number in range(30)))
    with GymServer() as server:
        options = {"url": server.url, "domain": "games"}
    report = check_data(DataSource(environment="nemo_gym", path=str(path), options=options), exams={})
    (said,) = report.faults
    assert "cannot be reached" in said.what and report.smoke["nemo_gym"].num_without_server == 30


def test_the_doctor_names_a_server_that_does_not_answer(tmp_path: Path) -> None:
    """`check --deep` and preflight ask; a plain `check` says that it did not."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**ROW, "expected": number}) + "\n" for number in range(40)))
    with GymServer() as server:
        url = server.url
    source = {"environment": "nemo_gym", "path": str(path), "options": {"url": url, "domain": "games"}}
    other = {**source, "hold_out": False}  # read otherwise, and graded by the same server
    games = {"games": {"source": source, "tasks": 4}, "more": {"source": other, "tasks": 4}}
    text = f"preset: quickstart\noverrides: {json.dumps({'benchmarks': games})}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = load_recipe(str(tmp_path / "recipe.yaml"))
    assert domain_of(recipe.benchmarks[-1].source) == "games"
    found = examine(Subject(recipe), HERE)
    said = [fault for fault in found.errors if "cannot be reached" in str(fault)]
    assert len(said) == 1 and url in said[0].what, "one error per server, and none per gold answer"
    assert not [fault for fault in found.errors if "grader failed" in str(fault)]
    assert "servers and other tools" in examine(Subject(recipe)).not_checked
