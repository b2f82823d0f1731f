"""The environment that `openenv init` makes, asked by our client and by OpenEnv's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from conftest import python_of

from kascade.environments import get_environment
from kascade.environments.base import Turn
from kascade.environments.remote.openenv import OpenEnv
from kascade.task import Grade

pytestmark = pytest.mark.outside
ROW = {"responses_create_params": {"input": "Say much."}, "reset": {}}
SAID = ["hello", "x" * 20, "é"]
OWN_CLIENT = """
import json, sys
from openenv.core.generic_client import GenericEnvClient
with GenericEnvClient(base_url=sys.argv[1]).sync() as env:
    first = env.reset()
    replies = [env.step({"message": said}) for said in json.loads(sys.argv[2])]
print(json.dumps({"first": first.observation, "rewards": [reply.reward for reply in replies]}))
"""


def configured(options: dict[str, Any]) -> OpenEnv:
    environment = get_environment("openenv").with_options(options)
    assert isinstance(environment, OpenEnv)
    return environment


def test_rewards_are_those_of_openenvs_own_client(openenv: Callable[..., dict[str, Any]]) -> None:
    environment = configured(
        openenv(observation_field="echoed_message", reward_range=[0, 5], max_steps=len(SAID))
    )
    assert environment.needs() == []
    task = environment.from_row(ROW)
    session = environment.start(task)
    opening = session.open()
    assert opening is not None
    replies = [session.respond(answer) for answer in SAID]
    session.close()
    base = environment.server(task).base
    command = [python_of("outside"), "-c", OWN_CLIENT, base, json.dumps(SAID)]
    own = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert opening.messages[0]["content"] == own["first"]["echoed_message"]
    assert [reply.messages[0]["content"] for reply in replies if isinstance(reply, Turn)] == SAID[:-1]
    assert isinstance(replies[-1], Grade)
    assert replies[-1].reward * 5 == pytest.approx(sum(own["rewards"]))


def test_whole_observations_and_json_actions(openenv: Callable[..., dict[str, Any]]) -> None:
    environment = configured(openenv(json_actions=True, reward_range=[0, 5]))
    session = environment.start(environment.from_row(ROW))
    opening = session.open()
    assert opening is not None and json.loads(opening.messages[0]["content"])["message_length"] == 0
    said = session.respond("no JSON")
    assert isinstance(said, Turn) and "no action" in said.messages[0]["content"]
    said = session.respond('{"message": "four"}')
    assert isinstance(said, Turn) and json.loads(said.messages[0]["content"])["echoed_message"] == "four"
    refused = session.respond('{"word": 1}')
    assert isinstance(refused, Turn) and "no action: " in refused.messages[0]["content"]
    session.close()
