"""The wire of verifiers' environment servers: ZeroMQ, messages in MessagePack.

Protocol: verifiers 0.4 (`v1/serve`), read and run against. `run` plays one episode; its traces come in parts,
and a last message ends it.
"""

from __future__ import annotations

import math
import os
import queue
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from kascade.environments.remote.wire import RemoteError

POLLED_MS = 10


@dataclass(frozen=True, slots=True)
class EpisodeEnd:
    """An episode that is over. problem: why there is no result; None where there is one.

    head: what it says of itself. traces: of each agent, its rewards, metrics, errors and whether it is ok.
    """

    problem: str | None
    head: Mapping[str, Any] = field(default_factory=dict)
    traces: tuple[Mapping[str, Any], ...] = ()


@dataclass(slots=True)
class _Running:
    events: queue.SimpleQueue[Any]
    traces: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, part: Mapping[str, Any]) -> None:
        """A part of a trace: only what was scored is of interest here."""
        if part.get("discard"):
            self.traces.pop(part["trace"], None)
            return
        trace = self.traces.setdefault(part["trace"], {"errors": []})
        trace.update(part.get("set") or {})
        trace["errors"] += part.get("errors") or []


class EpisodeServer:
    """All episodes of one server over one connection, which a thread of its own holds."""

    def __init__(self, address: str) -> None:
        """address: tcp://HOST:PORT. Raises RemoteError where the libraries are missing."""
        try:
            import msgpack
            import zmq
        except ImportError as error:
            raise RemoteError(f"{error.name} is missing: pip install 'kascade[verifiers]'") from None
        self._msgpack, self._zmq, self._address = msgpack, zmq, address
        self._outgoing: queue.SimpleQueue[tuple[str, str, bytes]] = queue.SimpleQueue()
        self._running: dict[str, _Running] = {}
        self._wonder = threading.Lock()
        self._heard = self._missed = -math.inf  # when the server said something, and did not when asked
        threading.Thread(target=self._hold, name="episodes", daemon=True).start()

    def run(self, request: Mapping[str, Any], events: queue.SimpleQueue[Any]) -> str:
        """Begin an episode. Returns its name; `EpisodeEnd` is put into `events` when it is over.

        Raises RemoteError for a request that cannot be sent.
        """
        return self._send("run", request, events)

    def cancel(self, name: str) -> None:
        """End an episode whose result nobody waits for."""
        if self._running.pop(name, None) is not None:
            self._outgoing.put((uuid.uuid4().hex, "cancel", self._packed({"request_id": name})))

    def is_healthy(self, timeout_s: float) -> bool:
        """Whether the server answers in time."""
        events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        name = self._send("health", {}, events)
        try:
            return events.get(timeout=timeout_s).problem is None
        except queue.Empty:
            self._running.pop(name, None)
            return False

    def is_there(self, lately_s: float, timeout_s: float) -> bool:
        """Whether the server said anything lately, or answers when it is asked: once for all who wonder."""
        with self._wonder:
            now = time.monotonic()
            if now - self._heard < lately_s:
                return True
            if self._missed > self._heard:  # asked in vain, and nothing came since
                return False
            if self.is_healthy(timeout_s):
                return True
            self._missed = time.monotonic()
            return False

    def _send(self, method: str, request: Mapping[str, Any], events: queue.SimpleQueue[Any]) -> str:
        name, packed = uuid.uuid4().hex, self._packed(request)
        self._running[name] = _Running(events)
        self._outgoing.put((name, method, packed))
        return name

    def _packed(self, request: Mapping[str, Any]) -> bytes:
        try:
            packed: bytes = self._msgpack.packb(dict(request), use_bin_type=True)
        except (TypeError, ValueError, OverflowError) as error:  # a number of more than 64 bits
            raise RemoteError(f"the row cannot be sent: {error}") from None
        return packed

    def _hold(self) -> None:
        zmq = self._zmq
        socket = zmq.Context.instance().socket(zmq.DEALER)
        for option in (zmq.LINGER, zmq.SNDHWM, zmq.RCVHWM):
            socket.setsockopt(option, 0)
        socket.connect(self._address)
        while True:
            while not self._outgoing.empty():
                name, method, packed = self._outgoing.get()
                socket.send_multipart([name.encode(), method.encode(), packed])
            if socket.poll(POLLED_MS):
                self._receive(socket.recv_multipart())

    def _receive(self, frames: list[bytes]) -> None:
        self._heard = time.monotonic()
        name = frames[0].decode(errors="replace")
        if len(frames) != 3 or (running := self._running.get(name)) is None:
            return
        try:
            said = self._msgpack.unpackb(frames[2], raw=False, strict_map_key=False)
            if frames[1] == b"delta":
                running.take(said)
                return
            problem = None if said.get("success") else str(said.get("error") or "it failed")
            ended = EpisodeEnd(problem, said.get("head") or {}, tuple(running.traces.values()))
        except Exception as error:  # whatever a server sends must not end the thread
            ended = EpisodeEnd(f"the server's message is not understood: {error}")
        self._running.pop(name, None)
        running.events.put(ended)


def episodes_at(address: str) -> EpisodeServer:
    """The one connection of this process to a server."""
    return _episodes(address, os.getpid())


@lru_cache(maxsize=16)
def _episodes(address: str, pid: int) -> EpisodeServer:
    """pid: a fork has none of its parent's threads."""
    return EpisodeServer(address)
