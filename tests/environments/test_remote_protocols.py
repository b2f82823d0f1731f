"""Servers that fail within an episode, by protocol: the rollout is masked, and no other one with it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from episode_server import Episode, EpisodeServer
from gym_server import GymServer
from socket_server import EnvServer
from test_remote_faults import RIGHT, ROW, environment, play

from kascade.environments import get_environment
from kascade.environments.base import Turn
from kascade.environments.crashes import graded
from kascade.environments.remote.environment import RemoteEnvironment
from kascade.environments.remote.wire import Line, RemoteError
from kascade.task import Grade

SAY = {"responses_create_params": {"input": "Say yes."}, "reset": {}}


def openenv(server: EnvServer, **options: Any) -> RemoteEnvironment:
    given = {"url": server.url, "timeout_s": 2.0, "backoff_s": 0.01, **options}
    found = get_environment("openenv").with_options(given)
    assert isinstance(found, RemoteEnvironment)
    return found


def verifiers(server: EpisodeServer, **options: Any) -> RemoteEnvironment:
    found = get_environment("verifiers").with_options({"url": server.url, "timeout_s": 0.5, **options})
    assert isinstance(found, RemoteEnvironment)
    return found


def said_in(found: RemoteEnvironment, row: dict[str, Any], answers: list[str]) -> Grade:
    """The grade of a conversation in which the policy says these answers."""
    session = found.start(found.from_row(row))
    assert session is not None
    try:
        session.open()
        for answer in answers:
            reaction = session.respond(answer)
            if isinstance(reaction, Grade):
                return reaction
        return session.stop()
    finally:
        session.close()


def test_an_episode_over_a_socket_pays_its_steps() -> None:
    with EnvServer() as server:
        assert said_in(openenv(server, reward_range=[0, 1.5]), SAY, ["yes", "yes", "yes"]).reward == 1.0
        assert said_in(openenv(server), SAY, ["yes", "no", "no"]).reward == 0.5
        assert server.asked["step"] == 6


@pytest.mark.parametrize(
    ("kind", "act", "says"),
    [
        ("step", "cut", "the connection failed"),
        ("step", "close", "the connection failed (WebSocketConnectionClosedException)"),
        ("step", "garbage", "not JSON"),
        ("reset", {"done": True}, "over before its first step"),
        ("step", {"reward": "0.5"}, "no number"),
        ("step", {"reward": True}, "no number"),
        ("step", {"reward": float("nan")}, "outside reward_range"),
        ("step", {"reward": None, "done": True}, "no step brought a reward"),
        ("step", {"type": "error", "data": {"message": "no such session"}}, "no such session"),
        ("step", {"type": "observation", "data": [1]}, "step: [1]"),
        ("step", {"type": "observation"}, "step"),
    ],
)
def test_a_socket_that_fails_masks_its_episode(kind: str, act: Any, says: str) -> None:
    with EnvServer({kind: [act]}) as server:
        grade = said_in(openenv(server), SAY, ["no", "no", "no"])
    assert grade.error is not None and says in grade.error and grade.reward == 0.0
    assert server.asked["step"] <= 3, "no step is taken twice"


@pytest.mark.parametrize("act", ["cut", {"type": "error", "data": {"code": "CAPACITY_REACHED"}}])
def test_an_episode_that_has_not_begun_begins_anew(act: Any) -> None:
    """The server forgets it with its connection; one of the step before may still hold the last session."""
    with EnvServer({"reset": [act, act]}) as server:
        assert said_in(openenv(server), SAY, ["yes", "no", "no"]).reward == 0.5
        assert (server.asked["reset"], server.asked["step"]) == (3, 3)
    with EnvServer({"reset": [act] * 99}) as server:
        grade = said_in(openenv(server, timeout_s=0.2), SAY, ["yes"])
    assert grade.error is not None and server.asked["step"] == 0


def test_a_server_that_only_pings_is_not_waited_for() -> None:
    """Servers ping every connection, also those whose episode hangs."""
    with EnvServer({"step": ["pings"]}) as server:
        found, grades = openenv(server, timeout_s=0.5), []
        asking = threading.Thread(target=lambda: grades.append(said_in(found, SAY, ["yes"])), daemon=True)
        asking.start()
        asking.join(60)  # for ever, where pings count as an answer
    assert [grade.error for grade in grades] == [
        "the environment's server failed: step: the connection failed (WebSocketTimeoutException)"
    ]


def test_a_failed_episode_costs_no_other_one() -> None:
    with EnvServer({"step": ["ok", "cut", "garbage", "ok"]}) as server:
        found = openenv(server, max_steps=1, conversations=1)
        sessions = [one for _ in range(4) if (one := found.start(found.from_row(SAY))) is not None]
        found.open_all(sessions)
        said = found.respond_all([(one, "yes") for one in sessions])
        for one in sessions:
            one.close()
    assert [(one.reward, one.error is None) for one in said if isinstance(one, Grade)] == [
        (0.5, True),
        (0.0, False),
        (0.0, False),
        (0.5, True),
    ]


def three_turns(episode: Episode) -> None:
    right = 0
    for _ in range(3):
        right += episode.ask() == "three"
        episode.says("And now?")
    episode.rewarded(right / 3)
    episode.end()


def test_an_episode_of_a_server_that_plays_it() -> None:
    with EpisodeServer(three_turns) as server:
        found = verifiers(server)
        assert found.needs() == []
        assert said_in(found, {"prompt": "How many?"}, ["three", "two", "three"]).reward == pytest.approx(
            2 / 3
        )
        assert server.played == 1


def dies_before_its_end(episode: Episode) -> None:
    episode.ask()


ENDS: list[tuple[Any, str]] = [
    ({"success": False, "error": "the runtime is gone"}, "the runtime is gone"),
    ({"success": False}, "it failed"),
    (
        {"success": True, "head": {"errors": [{"type": "ValueError", "message": "broken"}]}},
        "ValueError: broken",
    ),
    ({"success": True, "head": ["no", "object"]}, "not understood"),
    (["no", "object"], "not understood"),
    (7, "not understood"),
]


@pytest.mark.parametrize(("end", "says"), ENDS)
def test_an_episode_that_ends_badly_is_masked(end: Any, says: str) -> None:
    def act(episode: Episode) -> None:
        episode.ask()
        episode.rewarded(1.0)
        episode.end(end)

    with EpisodeServer(act) as server:
        grade = said_in(verifiers(server), {"prompt": "How many?"}, ["three"])
    assert grade.error is not None and says in grade.error and grade.reward == 0.0


@pytest.mark.parametrize("reward", [None, "1.0", [1.0], float("nan"), 7.0])
def test_a_reward_that_is_none_is_masked(reward: Any) -> None:
    def act(episode: Episode) -> None:
        episode.ask()
        episode.rewarded(reward)
        episode.end()

    with EpisodeServer(act) as server:
        grade = said_in(verifiers(server), {"prompt": "How many?"}, ["three"])
    assert (grade.error is not None) == (reward != "1.0"), grade  # a text that is a number is one


@pytest.mark.parametrize("delta", [7, {"set": {}}, {"trace": "t", "set": 7}, {"trace": ["t"]}])
def test_parts_that_nobody_understands_end_their_episode_alone(delta: Any) -> None:
    first = threading.Event()

    def act(episode: Episode) -> None:
        if episode.ask() == "broken":
            episode.delta(delta)
            first.set()
            return
        first.wait(30)
        episode.rewarded(1.0)
        episode.end()

    with EpisodeServer(act) as server:
        found = verifiers(server)
        task = found.from_row({"prompt": "How many?"})
        sessions = [one for _ in range(3) if (one := found.start(task)) is not None]
        found.open_all(sessions)
        said = found.respond_all(list(zip(sessions, ["three", "broken", "three"], strict=True)))
        for one in sessions:
            one.close()
    assert [one.error is None for one in said if isinstance(one, Grade)] == [True, False, True]


def test_bytes_that_are_no_message_end_their_episode() -> None:
    def act(episode: Episode) -> None:
        episode.ask()
        episode.raw(b"\xc1")

    with EpisodeServer(act) as server:
        grade = said_in(verifiers(server), {"prompt": "How many?"}, ["three"])
    assert grade.error is not None and "not understood" in grade.error


def test_a_row_that_cannot_be_sent_does_not_end_the_connection() -> None:
    with EpisodeServer(three_turns) as server:
        found = verifiers(server)
        grade = said_in(found, {"prompt": "How many?", "seed": 2**70}, ["three"])
        assert grade.error is not None and "cannot be sent" in grade.error
        assert said_in(found, {"prompt": "How many?"}, ["three"] * 3).reward == 1.0


def test_an_episode_of_a_server_that_is_gone_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing closes such a connection: the server is asked whether it is there."""
    monkeypatch.setattr("kascade.environments.remote.verifiers.WATCHED_S", 0.05)
    with EpisodeServer(dies_before_its_end) as server:
        found = verifiers(server, episode_timeout_s=600)
        session = found.start(found.from_row({"prompt": "How many?"}))
        assert session is not None and isinstance(session.open(), Turn)
        server.stop()
        grade = session.respond("three")
        session.close()
    assert isinstance(grade, Grade) and "does not answer any more" in str(grade.error)


# NeMo-Gym over HTTP: what test_remote_faults.py does not have.


@pytest.mark.parametrize("act", [502, 503, 504, 429, 307])
def test_what_no_tool_says_is_not_read_by_the_policy(act: int) -> None:
    """A gateway without its server: the policy cannot help it."""
    with GymServer({"/add": [act] * 9}) as server:
        grade = play(environment(server), RIGHT)
    assert grade.error is not None and str(act) in grade.error
    assert server.asked["/add"] == (4 if act == 429 else 1), "only what cannot have acted is asked again"


def test_too_many_requests_are_asked_again_and_counted_once() -> None:
    with GymServer({"/add": [429, 429]}) as server:
        assert play(environment(server), RIGHT).reward == 1.0
        assert set(server.totals.values()) == {5}


@pytest.mark.parametrize("text", ["[" * 200_000, '{"reward": 1', "\x00", '"text"', "[1]", "null"])
def test_whatever_a_grade_looks_like_no_answer_pays_for_it(text: str) -> None:
    """By the way of single answers, where a crash in our own code would be the answer's zero."""
    with GymServer({"/verify": [{"text": text}] * 3}) as server:
        found = environment(server, style="single")
        (grades,) = graded(found, [(found.from_row(ROW), ["It is 5."] * 2)])
    assert [one.error is None for one in grades] == [False, False]


@pytest.mark.parametrize(
    "reply",
    [
        {"observation": "x", "reward": 0.0, "info": {"tool_outputs": "none"}},
        {"observation": "x", "reward": 0.0, "info": {"tool_outputs": [7]}},
        {"observation": "x", "reward": 0.0, "info": {"tool_outputs": 7}},
        {"observation": "x", "reward": [0.0]},
        [],
    ],
)
def test_a_step_of_another_shape_masks_its_game_alone(reply: Any) -> None:
    with GymServer({"/step": [{"reply": reply}]}) as server:
        found = environment(server, style="game", conversations=1)
        sessions = [one for _ in range(3) if (one := found.start(found.from_row(ROW))) is not None]
        found.open_all(sessions)
        said = found.respond_all([(one, "one") for one in sessions])
    assert [isinstance(one, Grade) for one in said] == [True, False, False]
    assert isinstance(said[0], Grade) and said[0].error is not None


def test_a_server_that_is_not_ready_is_not_taken_for_one_without_tools() -> None:
    """Its description fails once: asked again, it says which tools there are, and the calls are made."""
    with GymServer({"/openapi.json": [503]}) as server:
        found = environment(server)
        (problem,) = found.needs()
        assert "503" in problem
        server.faults["/openapi.json"] = [503]
        assert play(found, RIGHT) == Grade(1.0, {"expected": 5.0, "right": 1.0})
        assert server.asked["/add"] == 2


def test_a_server_that_asks_for_a_key_is_named() -> None:
    with GymServer({"/openapi.json": [401]}) as server:
        (problem,) = environment(server).needs()
    assert "401" in problem


def test_an_answer_that_never_ends_is_held_to_the_deadline() -> None:
    """Bytes that come one by one: each of them is in time."""
    with GymServer({"/verify": ["trickle"]}) as server:
        found, grades = environment(server, timeout_s=0.5), []
        asking = threading.Thread(target=lambda: grades.append(play(found, ["It is 5."])), daemon=True)
        asking.start()
        asking.join(60)
    assert [grade.error for grade in grades] == [
        "the environment's server failed: /verify: no answer within 0.5 s (tries: 1)"
    ]


def test_an_answer_that_is_cut_is_no_answer() -> None:
    with GymServer({"/verify": ["half"]}) as server:
        assert play(environment(server), RIGHT).reward == 1.0
        assert server.asked["/verify"] == 2 and server.asked["/add"] == 2


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "text/plain; charset=no-such"])
def test_what_a_tool_says_is_read_as_it_is_written(kind: str) -> None:
    with GymServer({"/add": [{"text": '{"total": "fünf ✓"}', "kind": kind}]}) as server:
        found = environment(server)
        session = found.start(found.from_row(ROW))
        assert session is not None
        session.open()
        said = session.respond(RIGHT[0])
    assert isinstance(said, Turn) and said.messages[0]["content"] == '{"total": "fünf ✓"}'


def test_an_answer_without_measure_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kascade.environments.remote.wire.MOST_BYTES", 1000)
    with GymServer({"/seed_session": [{"text": "x" * 5000}]}) as server:
        line: Line = environment(server).server(environment(server).from_row(ROW)).line()
        with pytest.raises(RemoteError, match="more than 1,000 bytes"):
            line.ask("/seed_session", ROW, repeatable=False)
