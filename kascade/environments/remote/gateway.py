"""The policy behind an OpenAI API for one episode each: every request waits for the answer of its rollout.

An environment that runs whole episodes asks a model by HTTP. Here each episode has an address of its own.
What it asks becomes the next turn of a conversation, whose tokens the rollout keeps; nothing is sampled here.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "policy"  # what episodes call the model
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """A request that waits for its answer. body: as the client sent it."""

    body: Mapping[str, Any]
    answer: queue.SimpleQueue[dict[str, Any] | None] = field(default_factory=queue.SimpleQueue)

    def reply(self, message: Mapping[str, Any], reason: str) -> None:
        """Answer with a message, and why it ended."""
        self.answer.put({"message": dict(message), "finish_reason": reason})

    def refuse(self) -> None:
        """Let the client know that nothing more is said."""
        self.answer.put(None)


@dataclass(slots=True)
class Mailbox:
    """What happens in one episode, in order: requests of its model, and what else its owner puts there."""

    url: str
    key: str
    events: queue.SimpleQueue[Any] = field(default_factory=queue.SimpleQueue)


class Gateway:
    """One HTTP server for all episodes of this process."""

    def __init__(self, host: str) -> None:
        """host: the address by which environments reach this process."""
        self._boxes: dict[str, Mailbox] = {}
        self._host = host
        bind = host if host == LOOPBACK else "0.0.0.0"
        self._server = ThreadingHTTPServer((bind, 0), _handler(self._boxes))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="gateway", daemon=True).start()

    def open(self) -> Mailbox:
        """An address for one episode. Its key is secret: whoever knows it can ask."""
        key = secrets.token_urlsafe(16)
        box = Mailbox(f"http://{self._host}:{self._server.server_address[1]}/{key}/v1", key)
        self._boxes[key] = box
        return box

    def close(self, box: Mailbox) -> None:
        """Forget an episode, and refuse what still waits there."""
        self._boxes.pop(box.key, None)
        while True:
            try:
                event = box.events.get_nowait()
            except queue.Empty:
                return
            if isinstance(event, WaitingRequest):
                event.refuse()


def gateway_of(host: str) -> Gateway:
    """The one gateway of this process at an address."""
    return _gateway(host, os.getpid())


@lru_cache(maxsize=8)
def _gateway(host: str, pid: int) -> Gateway:
    """pid: a fork has none of its parent's threads."""
    return Gateway(host)


def _handler(boxes: Mapping[str, Mailbox]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            return

        def do_GET(self) -> None:
            self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

        def do_POST(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            box = boxes.get(self.path.strip("/").partition("/")[0])
            try:
                body = json.loads(self.rfile.read(size))
            except ValueError:
                body = None
            if box is None or not isinstance(body, dict) or not self.path.endswith("/chat/completions"):
                self._json(404, _error("there is no such episode, or it asks otherwise than by chat"))
                return
            asked = WaitingRequest(body)
            box.events.put(asked)
            answer = asked.answer.get()
            if answer is None:
                self._json(410, _error("the episode has ended"))
            elif body.get("stream"):
                self._stream(answer, body)
            else:
                self._json(200, {**_head("chat.completion"), "choices": [{"index": 0, **answer}], **_usage()})

        def _json(self, status: int, body: Mapping[str, Any]) -> None:
            self._send(status, "application/json", json.dumps(body).encode())

        def _stream(self, answer: Mapping[str, Any], body: Mapping[str, Any]) -> None:
            chunks = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in _chunks(answer, body))
            self._send(200, "text/event-stream", f"{chunks}data: [DONE]\n\n".encode())

        def _send(self, status: int, kind: str, content: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # the client has gone: its episode says why
                self.close_connection = True

    return Handler


def _chunks(answer: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    message = answer["message"]
    calls = [{"index": i, **call} for i, call in enumerate(message.get("tool_calls") or [])]
    delta = {**message, "tool_calls": calls} if calls else message
    head = _head("chat.completion.chunk")
    yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": answer["finish_reason"]}]}
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], **_usage()}


def _head(kind: str) -> dict[str, Any]:
    name = f"chatcmpl-{secrets.token_hex(12)}"
    return {"id": name, "object": kind, "created": int(time.time()), "model": MODEL}


def _usage() -> dict[str, Any]:
    """Tokens are counted by the rollout, not here."""
    return {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error"}}
