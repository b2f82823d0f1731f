"""HTTP to an environment's server: retries, deadline, rate limit, and errors that never become rewards."""

from __future__ import annotations

import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, ReadTimeoutError

from kascade.environments.remote.settings import Remote
from kascade.environments.waiting import seconds_to_wait

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that a later try may not see again
NOT_OF_A_TOOL = PASSING - {500}  # said by what stands before a tool; 500 may be what the call caused
SHOWN = 200  # characters of a server's answer that a message repeats
PIECE = 2**16
JSON = {"content-type": "application/json"}
FORGOTTEN = "the server was away in the middle of the conversation, and may have forgotten it"
CERTIFICATES = "SSL_CERT_FILE"  # names a file of certificates to trust, as other programs have it
MOST_BYTES = (
    2**26
)  # of an answer: observations are texts, and a server that never ends one must not fill memory


class RemoteError(Exception):
    """The server did not do its part. The rollout is masked and counted, whatever its answer was."""


class Refused(RemoteError):
    """The server was asked something that it does not take: asking again would not help."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A server's answer. charset, wait_s: as it says; None where it does not."""

    status: int
    content: bytes
    charset: str | None = None
    wait_s: float | None = None

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """UTF-8, unless the server says otherwise, as JSON and the servers' own clients have it."""
        try:
            return self.content.decode(self.charset or "utf-8", errors="replace")
        except LookupError:
            return self.content.decode(errors="replace")

    def __str__(self) -> str:
        return f"status {self.status}: {self.text[:SHOWN]}"


@dataclass(slots=True)
class Pace:
    """A rate limit that all conversations with one server share."""

    per_second: float | None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next: float = 0.0

    def wait(self) -> None:
        """Wait for one's turn."""
        if self.per_second is None:
            return
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + 1 / self.per_second
        time.sleep(max(0.0, at - now))


@dataclass(slots=True)
class Shared:
    """What all conversations with one server share.

    missed: when nobody listened at its address last. A server that comes back may have forgotten all.
    """

    pace: Pace
    adapter: HTTPAdapter
    missed: float = -math.inf


class Line:
    """One conversation's connection: its cookies are the server's memory of it."""

    def __init__(
        self, base: str, settings: Remote, shared: Shared, headers: Mapping[str, str] | None = None
    ) -> None:
        """headers: of every request."""
        self._base, self._settings, self._shared = base.rstrip("/"), settings, shared
        self._begun = self._acted = math.inf  # when the server first answered, and first acted
        self._session = requests.Session()
        self._session.headers.update(headers or {})
        self._session.trust_env = False  # no proxy and no netrc between a run and its environment
        self._session.verify = trusted_certificates()
        self._session.mount("http://", shared.adapter)
        self._session.mount("https://", shared.adapter)

    def ask(self, path: str, body: Mapping[str, Any], *, repeatable: bool) -> Any:
        """The JSON that `POST path` returns. Raises RemoteError.

        repeatable: asking twice does no harm. Other requests are repeated only while no connection could be
        made, since a server that was reached may have acted.
        """
        reply = self._send(path, body, repeatable=repeatable)
        if not reply.is_ok:
            kind = Refused if 300 <= reply.status < 500 else RemoteError
            raise kind(f"{path}: {reply}")
        try:
            return json.loads(reply.content)
        except (ValueError, RecursionError):
            raise RemoteError(f"{path}: the answer is not JSON: {reply.text[:SHOWN]}") from None

    def call(self, path: str, body: Mapping[str, Any]) -> str:
        """What a tool says, also where it refuses: a policy reads its own mistakes.

        Raises RemoteError for what no tool says: that there are too many requests, no server, another place.
        """
        reply = self._send(path, body, repeatable=False, tool=True)
        if 300 <= reply.status < 400:
            raise RemoteError(f"{path}: {reply}")
        return reply.text

    @property
    def may_be_forgotten(self) -> bool:
        """Whether the server was away since it first answered: it may know nothing of this conversation."""
        return self._shared.missed > self._begun

    def close(self) -> None:
        """Forget the cookies. Shared connections stay open."""
        self._session.cookies.clear()

    def _send(self, path: str, body: Mapping[str, Any], *, repeatable: bool, tool: bool = False) -> HttpReply:
        settings = self._settings
        deadline = time.monotonic() + settings.timeout_s
        for attempt in range(1, settings.attempts + 1):
            self._shared.pace.wait()
            problem, may_repeat, reply = self._try(path, body, deadline)
            if self._shared.missed > self._acted:
                raise RemoteError(f"{path}: {FORGOTTEN}")
            if reply is not None and reply.status not in (NOT_OF_A_TOOL if tool else PASSING):
                now = time.monotonic()
                self._begun = min(self._begun, now)
                self._acted = self._acted if repeatable else min(self._acted, now)
                return reply
            asked = 0.0 if reply is None else reply.wait_s or 0.0
            pause = asked + settings.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
            last = attempt == settings.attempts or time.monotonic() + pause >= deadline
            if asked >= settings.timeout_s:
                problem = f"{problem}; it asks to wait {asked:.0f} s, and timeout_s is {settings.timeout_s:g}"
            if last or not (repeatable or may_repeat):
                break
            time.sleep(pause)
        raise RemoteError(f"{path}: {problem} (tries: {attempt})")

    def _try(self, path: str, body: Mapping[str, Any], deadline: float) -> tuple[str, bool, HttpReply | None]:
        """What went wrong, whether the server cannot have acted, and its answer where there is one."""
        left = max(0.001, deadline - time.monotonic())
        try:
            with self._session.post(
                f"{self._base}/{path.lstrip('/')}",
                data=json.dumps(body),  # an answer's NaN goes to the server as it is: `json=` refuses it
                headers=JSON,
                timeout=left,
                allow_redirects=False,
                stream=True,
            ) as response:
                reply = read_reply(response, deadline)
        except OSError as error:  # all errors of `requests` are
            return *self._what_failed(error), None
        return str(reply), reply.status == 429, reply

    def _what_failed(self, error: OSError) -> tuple[str, bool]:
        """In words, and whether the server cannot have acted."""
        failed = requests.exceptions
        if isinstance(error, failed.SSLError):
            return certificate_problem(error), False
        if isinstance(error, failed.ConnectTimeout):
            return "no connection in time", True
        if isinstance(error, failed.ConnectionError):
            refused = "NewConnectionError" in repr(error) or "refused" in str(error).lower()
            if refused:
                self._shared.missed = time.monotonic()
            return ("cannot be reached" if refused else "the connection was cut"), refused
        if isinstance(error, failed.Timeout | TimeoutError):
            return f"no answer within {self._settings.timeout_s:g} s", False
        if isinstance(error, failed.RequestException):
            return type(error).__name__, False
        return str(error), False  # no such file of certificates


def read_reply(response: requests.Response, deadline: float) -> HttpReply:
    """The whole answer. A server that keeps on sending, however slowly, is held to the deadline, too.

    Raises TimeoutError, `requests`' own errors, and RemoteError for an answer without measure.
    """
    found = bytearray()
    try:
        while piece := response.raw.read1(PIECE, decode_content=True):
            found += piece
            if time.monotonic() >= deadline:
                raise TimeoutError
            if len(found) > MOST_BYTES:
                raise RemoteError(f"the answer has more than {MOST_BYTES:,} bytes")
    except ReadTimeoutError:
        raise TimeoutError from None
    except HTTPError as error:
        raise requests.exceptions.ConnectionError(error) from error
    said = response.headers.get("content-type", "").lower().partition("charset=")[2]
    charset = said.partition(";")[0].strip(" \"'")
    wait_s = seconds_to_wait(response.headers.get("retry-after"))
    return HttpReply(response.status_code, bytes(found), charset or None, wait_s)


def trusted_certificates() -> str | bool:
    """The file of certificates that the environment names; True for the usual ones."""
    return os.environ.get(CERTIFICATES) or True


def certificate_problem(error: Exception) -> str:
    """What to do where a server's certificate is not trusted, or it does not speak TLS."""
    found = re.search(r"\[SSL[^\]]*\] ?(.*?)(?: \(_ssl|$)", str(error))
    why = found[1][:SHOWN] if found else type(error).__name__
    remedy = f"name its certificate in the environment variable {CERTIFICATES}"
    return f"no safe connection ({why}): {remedy}, or give http:// where it has no TLS"
