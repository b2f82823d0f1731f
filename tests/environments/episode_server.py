"""A small server that speaks verifiers' protocol over ZeroMQ, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable
from typing import Any

import msgpack
import zmq

Act = Callable[["Episode"], None]


class Episode:
    """One episode, as a script plays it: `ask` its model, `delta` of a trace, `end`."""

    def __init__(self, send: Callable[[bytes, bytes], None], request: dict[str, Any]) -> None:
        self.request, self._send = request, send
        self.messages: list[dict[str, Any]] = [{"role": "user", "content": "How many?"}]

    def ask(self) -> str:
        """The policy's answer. It is kept in the conversation."""
        body = json.dumps({"model": "policy", "messages": self.messages}).encode()
        address = f"{self.request['client']['base_url']}/chat/completions"
        head = {"content-type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(address, body, head)) as reply:
            message = json.loads(reply.read())["choices"][0]["message"]
        self.messages.append({"role": "assistant", "content": message["content"]})
        return str(message["content"])

    def says(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def delta(self, value: Any) -> None:
        self._send(b"delta", msgpack.packb(value))

    def rewarded(self, reward: Any) -> None:
        """The trace's reward as verifiers sends it."""
        given = {"rewards": {"right": {"score": reward, "weight": 1.0}}, "ok": True}
        self.delta({"trace": "t", "set": given})

    def end(self, value: Any = None) -> None:
        self._send(b"response", msgpack.packb({"success": True, "head": {}} if value is None else value))

    def raw(self, content: bytes) -> None:
        self._send(b"response", content)


class EpisodeServer:
    """Plays every episode by `act`, each in a thread of its own. stop: from then on nothing is answered."""

    def __init__(self, act: Act) -> None:
        self.act, self.played = act, 0
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.url = f"tcp://127.0.0.1:{port}"
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> EpisodeServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        with self._lock:
            self._socket.close(0)
        self._context.term()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                there = self._socket.poll(1)
                frames = self._socket.recv_multipart() if there else None
            if frames is None:
                self._stopped.wait(0.002)
                continue
            client, name, method, packed = frames
            if method == b"health":
                self._send(client, name, b"response", msgpack.packb({"success": True}))
            elif method == b"run":
                self.played += 1
                threading.Thread(target=self._play, args=(client, name, packed), daemon=True).start()

    def _play(self, client: bytes, name: bytes, packed: bytes) -> None:
        def send(kind: bytes, content: bytes) -> None:
            self._send(client, name, kind, content)

        try:
            self.act(Episode(send, msgpack.unpackb(packed, strict_map_key=False)))
        except OSError:  # the policy has gone: nobody waits for this episode
            return

    def _send(self, client: bytes, name: bytes, kind: bytes, content: bytes) -> None:
        with self._lock:
            if not self._socket.closed:
                self._socket.send_multipart([client, name, kind, content])
