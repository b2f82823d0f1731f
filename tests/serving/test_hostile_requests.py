"""Requests that no client should send: each is refused in the API's own form, and the server lives on."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from test_api import ASKED, chat, complete, post, running

from kascade.rollout.types import SamplingParams
from kascade.serving.served import Served


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(Served.load("builtin://mini-nemotron-h")) as url:
        yield url


def raw(url: str, body: bytes) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(url, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def called(function: Any) -> dict[str, Any]:
    said = {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}
    return {"messages": [*ASKED, said, {"role": "tool", "content": "x"}]}


def offered(tool: Any) -> dict[str, Any]:
    return {"messages": ASKED, "tools": [tool]}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (called(7), "messages.1.tool_calls: [0].function.name"),
        (called({}), "messages.1.tool_calls: [0].function.name"),
        (called({"name": "f", "arguments": "no json"}), "[0].function.arguments: the text of a JSON object"),
        (called({"name": "f", "arguments": "[1]"}), "[0].function.arguments"),
        (called({"name": "f", "arguments": "[" * 100_000}), "[0].function.arguments"),
        (offered({}), "tools: [0].function.name"),
        (offered({"type": "function", "function": 7}), "tools: [0].function.name"),
        (offered({"type": "function", "function": {"name": None}}), "tools: [0].function.name"),
        (
            offered({"type": "function", "function": {"name": "f", "parameters": 7}}),
            "[0].function.parameters",
        ),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0: content: a text is needed"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half a character"),
        ({"messages": ASKED, "max_tokens": 0}, "max_tokens: 1 or more"),
        ({"messages": ASKED, "n": 0}, "n: "),
        ({"messages": ASKED, "temperature": float("nan")}, "temperature: "),
        ({"messages": ASKED, "\ud800": 1}, "unicode"),
        ({"messages": ASKED, "model": "\ud800"}, "ud800' is not served here"),
        ({"messages": [{"role": "user", "content": "x" * 10_000_000}]}, "10,000,000 characters"),
    ],
)
def test_a_chat_that_makes_no_sense_is_refused(address: str, body: dict[str, Any], says: str) -> None:
    started = time.monotonic()
    status, text = post(f"{address}/v1/chat/completions", {"max_tokens": 4, **body})
    assert (status, says in json.loads(text)["error"]["message"]) == (
        404 if "served" in says else 400,
        True,
    ), text
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("prompt", [[], [-1], "", [[]], {"a": 1}, [1.5], "x" * 10_000_000])
def test_a_prompt_that_is_none_is_refused(address: str, prompt: Any) -> None:
    status, text = post(f"{address}/v1/completions", {"prompt": prompt, "max_tokens": 1})
    message = json.loads(text)["error"]["message"]
    assert status == 400 and message.startswith("prompt: ") and "constrained" not in message


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"seed": 1' + b"0" * 5000 + b"}", b"[" * 100_000]
)
def test_a_body_that_is_no_request_is_refused_in_the_apis_form(address: str, body: bytes) -> None:
    status, said = raw(f"{address}/v1/chat/completions", body)
    assert status == 400 and said["error"]["message"]


def test_a_path_that_there_is_not_is_refused_in_the_apis_form(address: str) -> None:
    status, said = raw(f"{address}/v1/nowhere", b"{}")
    assert status == 404 and said["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("settings", [{"temperature": 1e-300}, {"top_p": 1e-300}, {"top_k": 10**30}])
def test_the_ends_of_a_range_are_answered(address: str, settings: dict[str, Any]) -> None:
    """Quotients and sums left the range of floats, and no token was left to draw."""
    assert chat(address, max_tokens=4, **{"temperature": 1.0, **settings})["choices"][0]["message"]["content"]


def test_many_stop_texts_and_a_huge_limit_are_honoured(address: str) -> None:
    (choice,) = chat(address, max_tokens=10**9, stop=[f"{n}x" for n in range(500)] + ["return"])["choices"]
    assert choice["message"]["content"] == "def f(k):\n    "


def test_a_client_that_leaves_without_a_stream_frees_the_model(address: str) -> None:
    """Its answers were drawn to their end while everybody else waited."""
    body = json.dumps({"messages": ASKED, "n": 64, "max_tokens": 4000, "stop": ["\0"], "temperature": 9})
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
        client.sendall(f"{head}Content-Type: application/json\r\n\r\n{body}".encode())
        time.sleep(0.5)
    started = time.monotonic()
    chat(address, max_tokens=2)
    assert time.monotonic() - started < 10


def test_a_client_that_leaves_before_its_log_probabilities_ends_nobody_elses_answers() -> None:
    """What it waited for was taken back, and the model's thread died with the attempt to bring it."""
    served = Served.load("builtin://mini-nemotron-h")
    scored = served.score([1, 2, 3], 0)
    scored.result(30)
    busy = served.generate([1], SamplingParams(2000, temperature=9.0, stop_texts=("\0",)), num_samples=16)
    left, (_, given_up) = served.score([1, 2, 3], 0), served.generate([1], SamplingParams(2))
    assert left.cancel() and given_up.cancel()
    busy[0].cancelled = True
    assert len(served.score([1, 2, 3], 0).result(30).logprobs) == 2
    served.thread.close()


def test_64_clients_at_once_get_what_each_gets_alone(address: str) -> None:
    def said(seed: int) -> str:
        return str(
            complete(address, prompt="A", max_tokens=12, seed=seed, temperature=1.0)["choices"][0]["text"]
        )

    alone = [said(seed) for seed in range(8)]
    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(said, [number % 8 for number in range(64)])) == alone * 8
