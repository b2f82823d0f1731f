"""The server behind a remote environment: found by its address, or started and ended by this process."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter

from kascade.environments.remote import watched
from kascade.environments.remote.settings import Remote
from kascade.environments.remote.wire import (
    PASSING,
    Line,
    Pace,
    RemoteError,
    Shared,
    certificate_problem,
    read_reply,
    trusted_certificates,
)
from kascade.termination import when_the_step_ends

T = TypeVar("T")
R = TypeVar("R")
ASKS_EVERY_S = 0.2
FORBIDDEN = (401, 403)
NAME = 120  # characters of a command that name the server


class Server:
    """All conversations with one server: connections, rate limit and threads are shared."""

    def __init__(self, settings: Remote) -> None:
        self.settings = settings
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=settings.conversations)
        self._shared = Shared(Pace(settings.requests_per_second), adapter)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._base = settings.url
        self._paths: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """What messages call it: its address, or the command that starts it."""
        return self._base or " ".join(self.settings.starts())[:NAME]

    @property
    def has_died(self) -> bool:
        """Whether a server that this process started is no more."""
        return self._process is not None and self._process.poll() is not None

    @property
    def base(self) -> str:
        """The address. Starts the server where a command does so. Raises RemoteError."""
        with self._lock:
            if self.has_died:
                self._base = None  # it died: a new one takes its place
            if self._base is None:
                self._base = self._start()
            return self._base

    def line(self, headers: Mapping[str, str] | None = None) -> Line:
        """A connection for one conversation. headers: of every request, such as a key."""
        return Line(self.base, self.settings, self._shared, headers)

    def paths(self) -> frozenset[str]:
        """Endpoints, as the server itself describes them; empty where it does not. Raises RemoteError."""
        if self._paths is None:
            described = self.get("/openapi.json")
            known = described.get("paths") if isinstance(described, dict) else None
            self._paths = frozenset(known or ())
        return self._paths

    def problem(self) -> str | None:
        """Why the server cannot be used; None when it answers."""
        try:
            self.get("/openapi.json")
        except RemoteError as error:
            return str(error)
        return None

    def together(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`work` on all items, in order, as many at once as the settings allow."""
        if len(items) < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(min(self.settings.conversations, len(items))) as pool:
            return list(pool.map(work, items))

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """JSON, or None where there is no such page: another server may have no description. Raises
        RemoteError where it cannot be reached, or is not ready, or asks for a key."""
        deadline = time.monotonic() + self.settings.timeout_s
        try:
            with requests.Session() as session:
                session.trust_env, session.verify = False, trusted_certificates()
                session.headers.update(headers or {})
                with session.get(
                    self.base.rstrip("/") + path,
                    timeout=self.settings.timeout_s,
                    stream=True,
                    allow_redirects=False,  # no other request follows one
                ) as response:
                    reply = read_reply(response, deadline)
        except requests.exceptions.SSLError as error:
            raise RemoteError(f"the server {self.name}: {certificate_problem(error)}") from None
        except OSError as error:
            problem = f"the server {self.name} cannot be reached ({type(error).__name__})"
            raise RemoteError(problem) from None
        if 300 <= reply.status < 400:
            problem = f"the server {self.name} sends to another address ({path}: status {reply.status})"
            raise RemoteError(f"{problem}: give that one as url")
        if reply.status in PASSING or reply.status in FORBIDDEN:
            raise RemoteError(f"the server {self.name} cannot be used: {path}: {reply}")
        try:
            return json.loads(reply.content) if reply.is_ok else None
        except (ValueError, RecursionError):
            return None

    def _start(self) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [word.replace("{port}", str(port)) for word in self.settings.starts()]
        if shutil.which(command[0]) is None:
            raise RemoteError(f"{command[0]} cannot be started: there is no such program")
        # The pipe to the watcher closes with this process, however it ends: no server stays behind.
        process = subprocess.Popen(
            [sys.executable, "-I", watched.__file__, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._process = process
        when_the_step_ends(lambda: _end(process))
        try:
            _wait_for_port(process, port, self.settings.start_timeout_s)
        except RemoteError as error:
            raise RemoteError(f"the server {self.name} {error}") from None
        return f"http://127.0.0.1:{port}"


def _wait_for_port(process: subprocess.Popen[bytes], port: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RemoteError(f"ended with exit code {process.returncode} before it answered")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(ASKS_EVERY_S)
    _end(process)
    raise RemoteError(f"did not answer within {timeout_s:g} s of its start")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a started server and all that it started."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(2 * watched.ENDS_WITHIN_S + 1)
    except subprocess.TimeoutExpired:
        process.kill()


def server_of(settings: Remote) -> Server:
    """The one server of this process for these settings."""
    return _server(type(settings), settings.model_dump_json())


@lru_cache(maxsize=64)
def _server(kind: type[Remote], settings: str) -> Server:
    return Server(kind.model_validate_json(settings))
