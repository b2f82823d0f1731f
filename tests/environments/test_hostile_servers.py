"""Servers that answer in ways that nobody expects: theirs is masked, and what the answer does is its own."""

from __future__ import annotations

import gzip
import json
import math
import resource
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from gym_server import GymServer
from socket_server import EnvServer
from test_remote_faults import RIGHT, ROW, environment, play
from test_remote_protocols import SAY, openenv, said_in

from kascade.environments.base import Turn
from kascade.environments.crashes import graded
from kascade.environments.waiting import seconds_to_wait
from kascade.task import Grade

HUGE = "1" + "0" * 400  # a whole number that no float holds


def call(arguments: str) -> str:
    return f'<tool_call>{{"name": "add", "arguments": {arguments}}}</tool_call>'


def test_a_reward_that_no_float_holds_is_the_servers_fault() -> None:
    """It was the answer's zero: a crash in our own code counts against the answer that it reads."""
    with GymServer({"/verify": [{"text": f'{{"reward": {HUGE}}}'}] * 3}) as server:
        found = environment(server, style="single")
        (grades,) = graded(found, [(found.from_row(ROW), ["It is 5."])])
    assert grades[0].error is not None and "too large" in grades[0].error


def test_a_part_that_no_float_holds_is_left_out() -> None:
    with GymServer({"/verify": [{"text": f'{{"reward": 0.5, "x": {HUGE}, "y": 2, "z": "1"}}'}]}) as server:
        found = environment(server, style="single")
        assert found.grade(found.from_row(ROW), ["It is 5."]) == [Grade(0.5, {"y": 2.0})]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-1e999", HUGE])
def test_numbers_that_json_does_not_know_buy_no_error(number: str) -> None:
    """A call is sent as the answer makes it, and its reward is the server's."""
    with GymServer() as server:
        grade = play(environment(server), [call(f'{{"number": {number}}}'), "It is 5."])
        assert grade.error is None and grade.reward == 0.0
        assert server.asked["/add"] == 1


def test_half_a_character_in_a_call_reaches_the_grader_as_json_escapes_it() -> None:
    seen: list[dict[str, Any]] = []
    with GymServer({"/add": [422]}) as server:
        plain = server.reply
        server.reply = lambda path, session, body: seen.append(body) or plain(path, session, body)  # type: ignore[method-assign, func-returns-value]
        assert play(environment(server), [call('{"number": "\\ud800"}'), "It is 5."]).error is None
    sent = next(one for one in seen[-1]["response"]["output"] if one["type"] == "function_call")
    assert sent["arguments"] == '{"number": "\\ud800"}' and sent["arguments"].encode()


@pytest.mark.parametrize("answer", ["[" * 100_000, '{"message": "\\ud800"}', '{"a": 1, "a": 2}', "7", ""])
def test_an_action_that_is_none_is_read_by_the_policy(answer: str) -> None:
    with EnvServer() as server:
        assert said_in(openenv(server, json_actions=True), SAY, [answer]) == Grade(0.0, {"steps": 1.0})
        assert server.asked["step"] == 0


UNFIT: dict[str, Any] = {
    "type": "error",
    "data": {"code": "VALIDATION_ERROR", "errors": [{"type": "missing", "loc": ["move"], "msg": "required"}]},
}


def test_an_action_of_another_shape_is_read_by_the_policy() -> None:
    with EnvServer({"step": [UNFIT]}) as server:
        found = openenv(server, json_actions=True)
        session = found.start(found.from_row(SAY))
        assert session is not None
        session.open()
        said = session.respond('{"jump": 1}')
        session.close()
    assert isinstance(said, Turn) and said.messages[0]["content"] == "This is no action: move: required"


def test_a_field_of_the_action_that_the_server_does_not_know_is_no_answers_fault() -> None:
    with EnvServer({"step": [UNFIT]}) as server:
        grade = said_in(openenv(server), SAY, ["yes"])
    assert grade.error is not None and "VALIDATION_ERROR" in grade.error


@pytest.mark.parametrize(
    "reply",
    [
        {"observation": 7, "reward": 0.0},
        {"observation": "x", "reward": 0.0, "terminated": "false"},
        {"observation": "x", "reward": 0.0, "truncated": 1},
        {"observation": {"text": "x"}, "reward": 0.0},
    ],
)
def test_a_step_of_another_shape_is_no_end_of_the_game(reply: dict[str, Any]) -> None:
    with GymServer({"/step": [{"reply": reply}]}) as server:
        grade = play(environment(server, style="game"), ["one"])
    assert grade.error is not None and "/step" in grade.error


def test_an_end_that_is_no_truth_value_is_masked() -> None:
    with EnvServer({"step": [{"done": "false", "reward": 1.0}]}) as server:
        grade = said_in(openenv(server), SAY, ["yes"])
    assert grade.error is not None and "`done`" in grade.error


def test_an_empty_observation_says_nothing() -> None:
    """As NeMo-Gym's own agent has it: no turn without words."""
    with GymServer({"/reset": [{"reply": {"observation": ""}}]}) as server:
        found = environment(server, style="game")
        session = found.start(found.from_row(ROW))
        assert session is not None and session.open() is None


def busy(status: int, header: str) -> dict[str, Any]:
    return {"status": status, "headers": {"retry-after": header}}


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_asks_to_wait_is_waited_for(status: int) -> None:
    with GymServer({"/verify": [busy(status, "1")]}) as server:
        started = time.monotonic()
        assert play(environment(server, timeout_s=5.0), RIGHT).reward == 1.0
        assert time.monotonic() - started >= 1.0 and server.asked["/verify"] == 2


def test_a_server_that_asks_for_an_hour_is_not_waited_for() -> None:
    with GymServer({"/verify": [busy(429, "3600")] * 9}) as server:
        started = time.monotonic()
        grade = play(environment(server), RIGHT)
        assert time.monotonic() - started < 1.5 and server.asked["/verify"] == 1
    assert grade.error is not None and "asks to wait 3600 s" in grade.error


@pytest.mark.parametrize("header", ["-3", "nan", "soon", "²", "9" * 400, "Wed, 99 Oct 2099 07:28:00 GMT"])
def test_a_time_that_is_none_is_the_usual_wait(header: str) -> None:
    assert seconds_to_wait(header) is None


def test_a_date_is_a_time_to_wait() -> None:
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert math.isclose(
        seconds_to_wait(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60))) or 0,
        60,
        abs_tol=2,
    )


def test_a_server_that_sends_elsewhere_is_named_before_a_run() -> None:
    """Its description was read from there, and every rollout was masked afterwards."""
    with GymServer({"/openapi.json": [301]}) as server:
        (problem,) = environment(server).needs()
    assert "sends to another address" in problem and "give that one as url" in problem


def test_an_address_may_end_with_a_slash() -> None:
    with GymServer() as server:
        assert environment(server, url=f"{server.url}/").needs() == []


def test_a_server_that_comes_back_has_forgotten_the_conversation() -> None:
    """A total of its own, from zero: the answer would pay for what the server lost."""
    with GymServer() as server:
        found, port = environment(server, timeout_s=20.0), server.httpd.server_port
        sessions = [one for _ in range(2) if (one := found.start(found.from_row(ROW))) is not None]
        found.open_all(sessions)
        found.respond_all([(one, RIGHT[0]) for one in sessions])
    one = sessions[0].respond(RIGHT[1])
    assert isinstance(one, Grade) and one.error is not None
    with GymServer(port=port) as back:
        back.totals = dict.fromkeys(server.totals, 0)
        other = sessions[1].respond(RIGHT[1])
        assert isinstance(other, Grade) and "may have forgotten" in str(other.error)
        assert play(found, RIGHT).reward == 1.0, "conversations that begin now are as ever"


def test_an_answer_that_met_no_tool_is_graded_by_the_server_that_came_back() -> None:
    with GymServer() as server:
        found, port = environment(server, timeout_s=20.0), server.httpd.server_port
        session = found.start(found.from_row(ROW))
        assert session is not None
        session.open()
    assert found.needs() != []
    session_line = vars(session)["line"]
    session_line._shared.missed = time.monotonic()  # as a refused request of another conversation leaves it
    with GymServer(port=port) as back:
        grade = session.respond("It is 5.")
        assert isinstance(grade, Grade) and grade.error is None and back.asked["/seed_session"] == 1


@pytest.mark.parametrize("layers", [1, 2])
def test_a_packed_answer_without_measure_does_not_fill_the_memory(layers: int) -> None:
    packed = b" " * 2**28
    for _ in range(layers):
        packed = gzip.compress(packed)
    act = {"text": packed, "headers": {"content-encoding": ", ".join(["gzip"] * layers)}}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with GymServer({"/verify": [act] * 4}) as server:
        grade = play(environment(server, timeout_s=20.0), ["It is 5."])
    assert grade.error is not None and "bytes" in grade.error
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18 * 1.5  # KiB: 384 MiB


@pytest.mark.parametrize("header", [{"content-encoding": "gzip"}, {"content-encoding": "br"}])
def test_an_answer_that_is_not_packed_as_it_says_is_masked(header: dict[str, str]) -> None:
    with GymServer({"/verify": [{"reply": {"reward": 1}, "headers": header}] * 4}) as server:
        grade = play(environment(server), ["It is 5."])
    assert (grade.error is None) == (header["content-encoding"] == "br"), grade


def test_a_server_on_the_newer_internet() -> None:
    with GymServer(host="::1") as server:
        assert play(environment(server), RIGHT).reward == 1.0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its own issuer's, for 127.0.0.1."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=gym -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*command.split(), "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True
    )
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


def secured(server: Any, listener: Any, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    server.url = server.url.replace("http://", "https://")


def test_a_certificate_that_nobody_trusts_is_named_and_can_be_trusted(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with GymServer() as server:
        secured(server, server.httpd, certificate)
        found = environment(server, style="tools")
        (problem,) = found.needs()
        assert "self-signed certificate" in problem and "SSL_CERT_FILE" in problem, problem
        assert "self-signed certificate" in str(play(found, RIGHT).error)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert found.needs() == [] and play(found, RIGHT).reward == 1.0
        monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
        assert "cannot be reached" in found.needs()[0] or "no safe connection" in found.needs()[0]
        assert play(found, RIGHT).error is not None


def test_a_socket_trusts_the_same_certificates(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with EnvServer() as server:
        secured(server, server.server, certificate)
        grade = said_in(openenv(server), SAY, ["yes"])
        assert "self-signed certificate" in str(grade.error)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert said_in(openenv(server), SAY, ["yes", "no", "no"]).reward == 0.5


def test_a_server_without_tls_says_so() -> None:
    with GymServer() as server:
        (problem,) = environment(server, url=server.url.replace("http:", "https:")).needs()
    assert "give http:// where it has no TLS" in problem, problem


def test_what_a_server_says_is_masked_only_for_its_own_conversation() -> None:
    replies = [{"status": 200, "text": json.dumps(one)} for one in (None, 7, "x", [], {"reward": "1"})]
    with GymServer({"/verify": replies}) as server:
        found = environment(server, style="single", conversations=1)
        grades = found.grade(found.from_row(ROW), ["It is 5."] * 6)
    assert [one.error is None for one in grades] == [False] * 5 + [True]
