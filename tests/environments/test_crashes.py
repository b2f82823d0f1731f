"""Environments of a user's own package: found by entry point, and outlived where they crash."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_engine import ScriptedEngine, byte_chat
from typer.testing import CliRunner

from kascade.cli import app
from kascade.environments import Task, get_environment, known_environments
from kascade.environments.crashes import graded
from kascade.errors import UserError
from kascade.recipe.schema import ConversationLimits
from kascade.rollout.conversations import Opening, converse, open_sessions
from kascade.rollout.types import SamplingParams

PACKAGE = """
from kascade.environments.base import Environment, Grade, Session, Task, Turn


class Vowels(Environment):
    name = "vowels"
    domain = "math"

    def pose(self, rng, level):
        return self.task("abe?", 2)

    def grade(self, task, answers):
        if "many" in answers:
            return []
        return [Grade(float(int(answer) == task.fields["vowels"])) for answer in answers]

    def from_row(self, row):
        return self.task(row["responses_create_params"]["input"][0]["content"], row["vowels"])

    def task(self, asked, vowels):
        messages = ({"role": "user", "content": asked},)
        return Task(self.name, self.domain, messages, {"vowels": vowels}, reference=str(vowels))


class Talk(Vowels):
    name = "talk"

    def start(self, task):
        return Chat()


class Chat(Session):
    def respond(self, answer):
        return Turn(({"role": "user", "content": "Go on."},)) if answer == "on" else Grade(1.0 / len(answer))

    def stop(self):
        raise RuntimeError("cannot stop")


class Unfinished(Environment):
    name = "unfinished"
    domain = "math"
"""
ENTRIES = """[kascade.environments]
vowels = their_package:Vowels
talk = their_package:Talk
absent = their_package:Absent
unfinished = their_package:Unfinished
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    (tmp_path / "their_package.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    get_environment.cache_clear()


def posed(name: str) -> Task:
    return get_environment(name).pose(random.Random(0), 0.5)


def test_a_crash_that_one_answer_causes_is_its_zero_and_nobody_elses() -> None:
    assert known_environments()["vowels"] == "their_package:Vowels"
    environment, task = get_environment("vowels"), posed("vowels")
    found = graded(environment, [(task, ["2", "two", "3"]), (task, ["two"]), (task, ["many"]), (task, ["2"])])
    assert [[grade.reward for grade in group] for group in found] == [[1, 0, 0], [0], [0], [1]]
    errors = [group[0].error for group in found]
    assert errors[0] is errors[1] is errors[3] is None
    assert found[0][1].components == found[1][0].components == {"crashed_the_grader": 1.0}
    assert errors[2] == "vowels gave 0 grades for 1 answers"


def test_a_grader_that_crashes_on_everything_masks_what_it_was_given() -> None:
    environment, task = get_environment("vowels"), posed("vowels")
    broken = replace(task, fields={})
    (group,) = graded(environment, [(broken, ["2", "3"])])
    assert all(str(grade.error).startswith("the grader crashed: KeyError") for grade in group)


@pytest.mark.parametrize("said", ["on", ""])
def test_a_session_that_crashes_ends_with_an_error(said: str) -> None:
    """In `respond`, which divides by the answer's length; in `stop`, when the limit of two turns is met."""
    chat, task = byte_chat(), posed("talk")
    (sessions,) = open_sessions([task], 1)
    assert sessions is not None
    params = SamplingParams(50, conversation=ConversationLimits(max_turns=2, max_tokens=10_000))
    engine = ScriptedEngine(chat, task, lambda read, turn: said)
    ((one,),) = converse(engine, chat, [Opening(task, sessions, seed=1)], params)
    wanted = "RuntimeError: cannot stop" if said else "ZeroDivisionError"
    assert one.grade.error is not None and wanted in one.grade.error


def test_what_cannot_be_loaded_is_told_as_such() -> None:
    for name in ("absent", "unfinished"):
        with pytest.raises(UserError, match="their_package") as caught:
            get_environment(name)
        assert "cannot be loaded" in str(caught.value)


def test_their_rows_are_checked_and_graded(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    row = {"environment_name": "vowels", "prompt": "abe?"}
    lines = [
        {**row, "vowels": 2, "response": "2"},
        {**row, "vowels": 2, "response": "two"},
        {**row, "response": "2"},
        {**row, "environment_name": "absent", "response": "2"},
    ]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = CliRunner().invoke(app, ["grade", str(rows)])
    assert result.exit_code == 2
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["reward"], bool(one["error"])) for one in found] == [(1.0, False), (0.0, False)]
    assert "cannot read this row (KeyError: 'vowels')" in result.stderr
    assert "their_package:Absent" in result.stderr
    checked = CliRunner().invoke(app, ["data", "check", str(rows), "--json"])
    assert checked.exit_code == 2
    (report,) = json.loads(checked.stdout)
    assert report["environments"] == {"vowels": 2}
    told = [fault["where"].rpartition("/")[2] for fault in report["faults"]]
    assert told == ["rows.jsonl:3", "rows.jsonl:4 environment 'absent'"]
