"""A small server that speaks NeMo-Gym's protocol and misbehaves on demand."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COOKIE = "session"


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # connections that may wait: all of a batch come at once


class _Listener6(_Listener):
    address_family = socket.AF_INET6


class GymServer:
    """A counter per session. `/add` adds, `/verify` rewards the expected total; games count to three.

    faults: by path, what to do with the first requests there: a status, "cut" (close without an answer),
    "garbage" (no JSON), "empty" (an object without a reward), a number of seconds to wait, "half" (cut within
    the answer), "trickle" (bytes one by one, until the server stops), {"text": ...} or {"reply": ...} to say
    instead (`kind`: its content type, `status`, `headers`), or "ok".

    port: where to listen; 0: anywhere. host: its name, as `::1`.
    """

    def __init__(
        self, faults: dict[str, list[Any]] | None = None, *, port: int = 0, host: str = "127.0.0.1"
    ) -> None:
        self.faults = {path: list(acts) for path, acts in (faults or {}).items()}
        self.asked: Counter[str] = Counter()
        self.totals: dict[str, int] = {}
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        kind = _Listener6 if ":" in host else _Listener
        self.httpd = kind((host, port), self._handler())
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.httpd.server_port}"

    def __enter__(self) -> GymServer:
        threading.Thread(target=self.httpd.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.stopped.set()
        self.httpd.shutdown()
        self.httpd.server_close()

    def reply(self, path: str, session: str, body: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            if path in ("/seed_session", "/reset"):
                self.totals[session] = 0
                return {"observation": "Count to three."} if path == "/reset" else {}
            if session not in self.totals:
                raise KeyError(session)
            if path == "/add":
                self.totals[session] += body["number"]
                return {"total": self.totals[session]}
            if path == "/step":
                self.totals[session] += 1
                done = self.totals[session] == 3
                return {"observation": "Go on.", "reward": float(done), "terminated": done, "info": {}}
            right = self.totals[session] == body["expected"]
            return {**body, "reward": float(right), "right": right}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with server.lock:
                    acts = server.faults.get(self.path, [])
                    act = acts.pop(0) if acts else None
                if act is not None:
                    self._say(act, "{}")
                    return
                paths = ["/seed_session", "/verify", "/add"]
                self._say(200, json.dumps({"paths": {path: {} for path in paths}}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server.lock:
                    server.asked[self.path] += 1
                    acts = server.faults.get(self.path, [])
                    act = acts.pop(0) if acts else "ok"
                session = (self.headers.get("cookie") or "").partition(f"{COOKIE}=")[2] or uuid.uuid4().hex
                if act == "lost":
                    server.totals.pop(session, None)
                if act == "cut":
                    server.reply(self.path, session, body)  # the server acted, and its answer got lost
                    self.connection.close()
                    return
                if act == "trickle":
                    self._trickle()
                    return
                if isinstance(act, float):
                    time.sleep(act)
                if isinstance(act, int) and not isinstance(act, bool):
                    self._say(act, '{"detail": "no"}')
                    return
                try:
                    said = json.dumps(server.reply(self.path, session, body))
                except KeyError:
                    self._say(404, '{"detail": "no such session"}')
                    return
                if isinstance(act, dict):
                    said = act["text"] if "text" in act else json.dumps(act.get("reply", {}))
                    kind, more = act.get("kind", "application/json"), act.get("headers", {})
                    self._say(act.get("status", 200), said, session, kind=kind, headers=more)
                    return
                texts = {"garbage": "<html>", "empty": "{}", "infinite": '{"reward": Infinity}'}
                self._say(200, texts.get(str(act), said), session, half=act == "half")

            def _say(
                self,
                status: int,
                text: str | bytes,
                session: str | None = None,
                *,
                half: bool = False,
                kind: str = "application/json",
                headers: dict[str, str] | None = None,
            ) -> None:
                content = text if isinstance(text, bytes) else text.encode()
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                if session is not None:
                    self.send_header("set-cookie", f"{COOKIE}={session}")
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                try:
                    self.wfile.write(content[: len(content) // 2] if half else content)
                except OSError:  # the client has given up
                    self.close_connection = True

            def _trickle(self) -> None:
                self.send_response(200)
                self.send_header("content-length", "1000000")
                self.end_headers()
                while not server.stopped.wait(0.02):
                    try:
                        self.wfile.write(b" ")
                    except OSError:
                        return

            def log_message(self, *_: object) -> None:
                return

        return Handler
