"""A real HTTP server that speaks the OpenAI chat protocol and can be told to misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], str]


@dataclass
class JudgeServer:
    """reply: what is answered to a request. troubles: what happens instead to the first requests."""

    reply: Reply
    troubles: list[object] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def judge_server(reply: Reply, *troubles: object) -> Iterator[JudgeServer]:
    """troubles: a status, (status, Retry-After), raw bytes as body, or "hang up"."""
    state = JudgeServer(reply, list(troubles))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(body)
            state.headers.append(dict(self.headers))
            trouble = state.troubles.pop(0) if state.troubles else None
            if trouble == "hang up":
                self.connection.close()
            elif isinstance(trouble, bytes):
                self._send(200, trouble)
            elif trouble is not None:
                status, wait = trouble if isinstance(trouble, tuple) else (trouble, None)
                headers = {"Retry-After": wait} if wait else {}
                self._send(status, b"try again", {**headers, "Location": "http://127.0.0.1:9/v1"})
            else:
                choices = [{"message": {"role": "assistant", "content": state.reply(body)}}]
                self._send(200, json.dumps({"choices": choices}).encode())

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(BrokenPipeError):  # the client has given up
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
