"""An environment says itself what it is: options, fields of its rows, gold answers, domain."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
from pydantic import Field
from typer.testing import CliRunner

from kascade.cli import app
from kascade.environments import get_environment, known_environments
from kascade.environments.base import Environment
from kascade.environments.options import Options
from kascade.environments.rows import routing
from kascade.environments.rows.gold import gold_answer
from kascade.environments.rows.nemo_gym import row_messages
from kascade.task import Grade, Task


class SumOptions(Options):
    digits: int = Field(2, description="digits of each number")


class Sums(Environment):
    """Adding numbers."""

    name = "sums"
    domain: ClassVar[str] = "arithmetic"
    options_type = SumOptions
    row_fields = ("a_sum",)

    def pose(self, rng: random.Random, level: float) -> Task:
        raise ValueError("sums are read from rows")

    def grade(self, task: Task, answers: Sequence[str]) -> list[Grade]:
        return [Grade(float(answer == str(task.fields["a_sum"]))) for answer in answers]

    def gold(self, task: Task) -> str | None:
        return str(task.fields["a_sum"])

    def from_row(self, row: Mapping[str, Any]) -> Task:
        return Task(self.name, self.domain, row_messages(row), {"a_sum": row["a_sum"]})


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    place = {"sums": f"{__name__}:Sums"}
    monkeypatch.setattr("kascade.environment_names.plugin_environments", lambda: place)
    monkeypatch.setattr(routing, "plugin_environments", lambda: place)
    get_environment.cache_clear()


@pytest.mark.usefixtures("plugin")
def test_a_plug_in_is_found_by_its_own_fields_and_writes_its_own_gold_answers() -> None:
    row = {"responses_create_params": {"input": "2 + 2 ="}, "a_sum": 4}
    assert routing.environment_of(row) == "sums"
    environment = get_environment("sums")
    task = environment.from_row(row)
    assert gold_answer(task) == "4" and environment.grade(task, ["4", "5"]) == [Grade(1.0), Grade(0.0)]
    with pytest.raises(ValueError, match="digits"):
        environment.with_options({"digits": "many"})
    with pytest.raises(ValueError, match="allowed: digits"):
        environment.with_options({"places": 3})


@pytest.mark.usefixtures("plugin")
def test_the_command_lists_plug_ins_with_their_options() -> None:
    shown = json.loads(CliRunner().invoke(app, ["environments", "sums", "--json"]).output)
    assert shown["domain"] == "arithmetic" and shown["needs"] == ["rows"] and shown["example"] is None
    assert shown["options"] == [
        {"name": "digits", "required": False, "default": 2, "what": "digits of each number"}
    ]


def test_every_environment_is_listed_and_its_example_is_a_row_that_it_reads() -> None:
    listed = json.loads(CliRunner().invoke(app, ["environments", "--json"]).output)
    assert {one["name"] for one in listed} == set(known_environments())
    assert all(one["what"] and one["domain"] for one in listed)
    assert "a server" in next(one["needs"] for one in listed if one["name"] == "nemo_gym")
    plain = CliRunner().invoke(app, ["environments"]).output
    assert "code_gen" in plain and "a sandbox" in plain


def test_an_unknown_environment_is_an_error_with_those_that_there_are() -> None:
    done = CliRunner().invoke(app, ["environments", "mcqq"])
    assert done.exit_code == 2
