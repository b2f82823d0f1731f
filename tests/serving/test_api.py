"""A real server on loopback, asked as clients ask."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from kascade.serving.app import make_app
from kascade.serving.served import Served

ASKED = [{"role": "user", "content": "Write f(k): double k."}]


@pytest.fixture(scope="module")
def served() -> Served:
    return Served.load("builtin://mini-nemotron-h")


@pytest.fixture(scope="module")
def address(served: Served) -> Iterator[str]:
    with running(served) as url:
        yield url


class running:  # noqa: N801 - read as a verb
    """The API of a checkpoint on a port of its own."""

    def __init__(self, served: Served, **options: Any) -> None:
        import uvicorn

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        app = make_app(served, default_tokens=32, **options)
        self.server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.url = f"http://127.0.0.1:{port}"

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self.url

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(timeout=10)


def post(url: str, body: dict[str, Any], key: str = "") -> tuple[int, str]:
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def chat(url: str, **settings: Any) -> dict[str, Any]:
    status, body = post(f"{url}/v1/chat/completions", {"messages": ASKED, "temperature": 0, **settings})
    assert status == 200, body
    return json.loads(body)


def complete(url: str, **settings: Any) -> dict[str, Any]:
    status, body = post(f"{url}/v1/completions", settings)
    assert status == 200, body
    return json.loads(body)


def test_a_greedy_chat_says_what_the_engine_says(served: Served, address: str) -> None:
    reply = chat(address, max_tokens=32)
    (choice,) = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": "def f(k):\n    return k * 2"}
    assert choice["finish_reason"] == "stop"
    used = reply["usage"]
    assert used["total_tokens"] == used["prompt_tokens"] + used["completion_tokens"] > 0
    assert chat(address, max_tokens=3)["choices"][0]["finish_reason"] == "length"


def test_a_stream_says_the_same_token_by_token(address: str) -> None:
    _, body = post(
        f"{address}/v1/chat/completions",
        {"messages": ASKED, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}},
    )
    events = [line.removeprefix("data: ") for line in body.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    said = "".join(delta.get("content") or "" for delta in deltas)
    assert said == chat(address)["choices"][0]["message"]["content"]
    assert len(deltas) > 8, "one event per token, not one for all"
    assert (
        chunks[-2]["choices"][0]["finish_reason"] == "stop" and chunks[-1]["usage"]["completion_tokens"] > 8
    )


def test_log_probabilities_are_the_models_own(served: Served, address: str) -> None:
    tokens = complete(
        address, prompt="Ada keeps the red key.", max_tokens=4, temperature=0, logprobs=2, echo=True
    )
    found = tokens["choices"][0]["logprobs"]
    ids = served.encode("Ada keeps the red key.")
    with torch.inference_mode():
        logits = served.policy.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    expected = logits[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].tolist()
    assert found["token_logprobs"][0] is None
    assert found["token_logprobs"][1 : len(ids)] == pytest.approx(expected, abs=1e-4)
    best = logits.topk(2, dim=-1).values.tolist()
    for place, values in enumerate(best[:-1], 1):
        assert sorted(found["top_logprobs"][place].values(), reverse=True) == pytest.approx(values, abs=1e-4)
    whole = tokens["choices"][0]["text"]
    assert "".join(found["tokens"]) == whole
    assert [whole[at] for at in found["text_offset"]] == [token[0] for token in found["tokens"]]


def test_a_chats_log_probabilities_cover_its_answer(address: str) -> None:
    (choice,) = chat(address, logprobs=True, top_logprobs=3)["choices"]
    content = choice["logprobs"]["content"]
    assert "".join(one["token"] for one in content).startswith(choice["message"]["content"])
    assert all(
        one["logprob"] == pytest.approx(one["top_logprobs"][0]["logprob"], abs=1e-5) for one in content
    )


def test_seeds_fix_samples_and_many_clients_do_not_change_them(address: str) -> None:
    def ask(seed: int) -> str:
        return complete(address, prompt="The", max_tokens=12, seed=seed)["choices"][0]["text"]

    alone = [ask(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(8)))
    assert together == alone and len(set(alone)) > 4
    several = complete(address, prompt="The", max_tokens=12, seed=1, n=3)["choices"]
    assert [one["index"] for one in several] == [0, 1, 2] and several[0]["text"] == alone[1]


def test_stop_texts_end_answers(address: str) -> None:
    (choice,) = chat(address, stop=["return"])["choices"]
    assert choice["message"]["content"] == "def f(k):\n    " and choice["finish_reason"] == "stop"


def test_all_errors_of_a_request_are_named_at_once(address: str) -> None:
    status, body = post(
        f"{address}/v1/chat/completions", {"messages": [], "temperature": -1, "frequency_penalty": 0.5}
    )
    message = json.loads(body)["error"]["message"]
    assert status == 400
    assert all(name in message for name in ("messages", "temperature", "frequency_penalty"))


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"messages": ASKED, "model": "other"}, 404, "mini-nemotron-h"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "image_url"),
        ({"messages": ASKED, "response_format": {"type": "json_object"}}, 400, "only text"),
        ({"messages": [{"role": "user", "content": "word " * 20_000}]}, 400, "context"),
        ({"messages": ASKED, "speed": 3}, 400, "speed"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    address: str, body: dict[str, Any], status: int, says: str
) -> None:
    found, text = post(f"{address}/v1/chat/completions", body)
    assert found == status and says in json.loads(text)["error"]["message"]


def test_the_server_lives_on_after_errors(address: str) -> None:
    post(f"{address}/v1/completions", {"prompt": [10**9]})
    assert chat(address)["choices"][0]["message"]["content"]


def test_a_key_is_asked_for(served: Served) -> None:
    with running(served, api_key="right") as url:
        assert post(f"{url}/v1/chat/completions", {"messages": ASKED})[0] == 401
        assert post(f"{url}/v1/chat/completions", {"messages": ASKED}, key="wrong")[0] == 401
        assert post(f"{url}/v1/chat/completions", {"messages": ASKED, "max_tokens": 1}, key="right")[0] == 200
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            assert answer.status == 200


def test_a_client_that_leaves_frees_the_model(served: Served, address: str) -> None:
    port = int(address.rpartition(":")[2])
    body = json.dumps({"messages": ASKED, "stream": True, "n": 8, "max_tokens": 4000, "stop": ["\0"]})
    with socket.create_connection(("127.0.0.1", port)) as client:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        client.sendall((head + body).encode())
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    started = time.monotonic()
    assert chat(address)["choices"][0]["message"]["content"]
    assert time.monotonic() - started < 30, "a call behind one that nobody waits for"
