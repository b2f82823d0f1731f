"""Environments behind verifiers' own server: rewards are those of its own client, tokens are appended."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import HERE, PATIENT, python_of
from loopback import answering
from toy_cascade import make_policy
from typer.testing import CliRunner

from kascade.cli import app
from kascade.environments import get_environment
from kascade.environments.base import Turn, WholePrompt
from kascade.environments.remote.verifiers import Verifiers
from kascade.rollout.conversations import Opening, converse
from kascade.rollout.types import SamplingParams
from kascade.task import Grade, Message, Task

pytestmark = pytest.mark.outside
SERVE = str(HERE / "serve_verifiers.py")
Options = Callable[..., dict[str, Any]]


@cache
def rows_of(taskset: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [python_of("outside"), SERVE, taskset, "rows"], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def configured(options: dict[str, Any]) -> Verifiers:
    environment = get_environment("verifiers").with_options(options)
    assert isinstance(environment, Verifiers)
    return environment


def said_to(content: str) -> str:
    """What the scripted model says to a user: the words backwards, an a in front of every second one."""
    words = content.split()[::-1]
    return " ".join(["a", *words] if len(set(words)) % 2 else words)


def reply(body: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": said_to(body["messages"][-1]["content"])}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "policy",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}  # fmt: skip


@pytest.fixture(scope="module")
def scripted() -> Iterator[str]:
    with answering(reply) as port:
        yield f"http://127.0.0.1:{port}/v1"


def played(environment: Verifiers, task: Task) -> tuple[Grade, list[tuple[Message, ...]]]:
    """An episode of the scripted model: its grade, and what was said to it each time."""
    session = environment.start(task)
    try:
        said = session.open()
        assert isinstance(said, WholePrompt)
        heard = [said.messages]
        while True:
            reaction = session.respond(said_to(heard[-1][-1]["content"]))
            if isinstance(reaction, Grade):
                return reaction, heard
            heard.append(reaction.messages)
    finally:
        session.close()


@pytest.mark.parametrize(("taskset", "turns"), [("say_letters", 1), ("say_more", 3)])
def test_rewards_are_those_of_verifiers_own_client(
    verifiers: Options, scripted: str, taskset: str, turns: int
) -> None:
    environment = configured(verifiers(taskset, domain="games"))
    assert environment.needs() == []
    tasks = [environment.from_row(row) for row in rows_of(taskset)[:8]]
    found = [played(environment, task) for task in tasks]
    address = environment.server(tasks[0]).base.replace("http", "tcp")
    command = [python_of("outside"), SERVE, taskset, "own", address, scripted]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    own = [float(line) for line in done.stdout.splitlines()]
    assert [grade.reward for grade, _ in found] == pytest.approx(own)
    assert len(set(own)) > 1, "all rewards are alike: nothing was compared"
    assert all(len(heard) == turns and grade.error is None for grade, heard in found)
    grade, heard = found[0]
    if taskset == "say_letters":
        assert {"share", "first", "words"} <= grade.components.keys()
    else:
        assert [one["role"] for one in heard[0]] == ["system", "user"] and grade.components["right"] >= 0


def test_an_installed_taskset_is_served_and_brings_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name, as one of the hub is, once its package is installed."""
    monkeypatch.setenv("PYTHONPATH", str(HERE / "verifiers_environments"))
    agent = {"harness": {"id": "plain_chat"}, "runtime": {"type": "subprocess"}}
    options = {"package": "say_letters", "python": python_of("outside"), "config": {"agent": agent}}
    pairs = [part for name, value in options.items() for part in ("--option", f"{name}={json.dumps(value)}")]
    out = tmp_path / "rows.jsonl"
    done = CliRunner().invoke(app, ["data", "rows", "verifiers", *pairs, "--out", str(out)])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows == rows_of("say_letters")
    environment = configured({**options, **PATIENT})
    assert environment.needs() == []
    grade, _ = played(environment, environment.from_row(rows[0]))
    assert grade.error is None and {"share", "first"} <= grade.components.keys()


def test_many_episodes_at_once_become_tokens_that_only_grow(verifiers: Options) -> None:
    environment = configured(verifiers("say_more"))
    tasks = [environment.from_row(row) for row in rows_of("say_more")[:4]]
    policy = make_policy()
    openings = [
        Opening(task, tuple(environment.start(task) for _ in range(4)), n) for n, task in enumerate(tasks)
    ]
    groups = converse(policy.engine, policy.chat, openings, SamplingParams(4))
    for task, dialogues in zip(tasks, groups, strict=True):
        follow_ups = task.fields["task_data"]["follow_ups"]
        for one in dialogues:
            assert one.grade.error is None, one.grade.error
            sample = one.sample
            assert len(sample.logprobs) == sum(sample.scored) and len(sample.token_ids) == len(sample.scored)
            if one.num_turns == 3:
                assert not all(sample.scored) and all(line in one.text for line in follow_ups)
    assert any(one.num_turns == 3 for dialogues in groups for one in dialogues)


def test_a_limit_ends_an_episode_and_what_was_said_counts(verifiers: Options) -> None:
    environment = configured(verifiers("say_more", max_steps=2))
    session = environment.start(environment.from_row(rows_of("say_more")[0]))
    session.open()
    assert isinstance(session.respond("a"), Turn)
    grade = session.respond("b")
    session.close()
    assert isinstance(grade, Grade) and grade.error is None
    assert grade.reward == pytest.approx(1 / 3)


def test_a_server_that_fails_masks_the_rollout(verifiers: Options) -> None:
    environment = configured(verifiers("say_more", episode_timeout_s=10))
    row = rows_of("say_more")[0]
    broken = environment.start(environment.from_row({**row, "follow_ups": "none"}))
    assert broken.open() is None
    grade = broken.respond("a")
    assert isinstance(grade, Grade) and grade.error is not None and "follow_ups" in grade.error
    gone = configured({"url": "tcp://127.0.0.1:9", "episode_timeout_s": 0.2})
    assert gone.needs() == ["the server tcp://127.0.0.1:9 does not answer within 5 s"]
    session = gone.start(gone.from_row(row))
    session.open()
    grade = session.respond("a")
    session.close()
    assert isinstance(grade, Grade) and "nothing happened within 0.2 s" in str(grade.error)


def test_a_short_stage_on_a_server_of_verifiers_teaches(tmp_path: Path, verifiers: Options) -> None:
    from statistics import mean

    from test_learning_from_servers import rewards_of_a_stage

    options = verifiers("say_letters", conversations=64)
    rewards = rewards_of_a_stage(tmp_path, "verifiers", rows_of("say_letters"), steps=8, **options)
    assert mean(rewards[-2:]) > mean(rewards[:2]) + 0.15, rewards
