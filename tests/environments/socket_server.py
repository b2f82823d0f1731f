"""A small server that speaks OpenEnv's protocol over a WebSocket, and misbehaves on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections import Counter
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
TEXT, CLOSE, PING = 1, 8, 9


class _Listener(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 256


class EnvServer:
    """Counts steps; the third one ends the episode. Each pays .5 where it says "yes".

    faults: by kind of message (`reset`, `step`, or `connect`), what to do with the first ones: "cut",
    "close", "garbage", "pings" (only pings, until the server stops), an object to say instead, or "ok".
    """

    def __init__(self, faults: dict[str, list[Any]] | None = None) -> None:
        self.faults = {kind: list(acts) for kind, acts in (faults or {}).items()}
        self.asked: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.server = _Listener(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> EnvServer:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()

    def act(self, kind: str) -> Any:
        with self.lock:
            self.asked[kind] += 1
            acts = self.faults.get(kind, [])
            return acts.pop(0) if acts else "ok"


def _handler(server: EnvServer) -> type[StreamRequestHandler]:
    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            head = []
            while (line := self.rfile.readline().strip()) or not head:
                head.append(line)
            key = next((one.partition(b":")[2].strip() for one in head if b"-key:" in one.lower()), None)
            if server.act("connect") == "cut":
                return
            if key is None:  # the description, over HTTP
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
                return
            accepted = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
            self.wfile.write(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
                b"sec-websocket-accept: " + accepted + b"\r\n\r\n"
            )
            self._talk()

        def _talk(self) -> None:
            steps = 0
            while (message := self._read()) is not None:
                kind = message["type"]
                act = server.act(kind)
                if act == "cut":
                    return
                if act == "close":
                    self._write(CLOSE, b"")
                    return
                if act == "pings":
                    while not server.stopped.wait(0.02):
                        self._write(PING, b"here")
                    return
                steps = steps + 1 if kind == "step" else 0
                paid = 0.5 * (message.get("data", {}).get("message") == "yes")
                said = {
                    "observation": {"steps": steps},
                    "reward": paid if steps else None,
                    "done": steps == 3,
                }
                whole = {"type": "observation", "data": said}
                if isinstance(act, dict):
                    whole = act if "type" in act else {"type": "observation", "data": {**said, **act}}
                self._write(TEXT, b"{" if act == "garbage" else json.dumps(whole).encode())

        def _read(self) -> dict[str, Any] | None:
            head = self.rfile.read(2)
            if len(head) < 2 or head[0] & 15 == CLOSE:
                return None
            size = head[1] & 127
            if size == 126:
                (size,) = struct.unpack("!H", self.rfile.read(2))
            mask = self.rfile.read(4)
            content = bytes(byte ^ mask[i % 4] for i, byte in enumerate(self.rfile.read(size)))
            if head[0] & 15 != TEXT:  # an answer to a ping
                return self._read()
            found: dict[str, Any] = json.loads(content)
            return found

        def _write(self, kind: int, content: bytes) -> None:
            size = len(content)
            head = (
                bytes([128 | kind, size])
                if size < 126
                else bytes([128 | kind, 126]) + struct.pack("!H", size)
            )
            try:
                self.wfile.write(head + content)
            except OSError:
                server.stopped.wait(0)

    return Handler
