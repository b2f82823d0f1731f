"""One POST to a receiver: bounded tries, no redirects, and no doubt about what was delivered.

An answer that does not come says nothing: the receiver may have acted. So only what was certainly not
delivered is tried again.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from kascade.version import __version__

State = Literal["sent", "refused", "unanswered", "failed"]
SIGNATURE, TIMESTAMP, ID = "X-Kascade-Signature", "X-Kascade-Timestamp", "Idempotency-Key"
BUSY = {408, 425, 429}  # statuses under 500 that ask for another try


@dataclass(frozen=True, slots=True)
class Letter:
    """What is sent. id: the same in every try, for receivers that look for it. secret: of the signature."""

    url: str
    body: bytes
    id: str
    secret: str | None


@dataclass(frozen=True, slots=True)
class Tries:
    """attempts: tries. timeout_s: of one. backoff_s: before the second; it doubles."""

    attempts: int
    timeout_s: float
    backoff_s: float

    @property
    def waits(self) -> list[float]:
        """Seconds before each try."""
        return [0.0, *(self.backoff_s * 2**n for n in range(self.attempts - 1))]

    @property
    def most_s(self) -> float:
        """Seconds that all tries may take: each may connect and then wait for an answer."""
        return sum(self.waits) + 2 * self.timeout_s * self.attempts


@dataclass(frozen=True, slots=True)
class Delivered:
    """How it went. sent: taken. refused: the receiver does not want it. unanswered: nobody knows.
    failed: certainly not taken. why: for the last three."""

    state: State
    attempts: int
    why: str = ""


def deliver(letter: Letter, tries: Tries) -> Delivered:
    """Send a letter. Returns within `tries.most_s`, whatever the receiver does."""
    found = [Delivered("unanswered", 0, f"no answer within {tries.most_s:g} s")]

    def work() -> None:
        for result in _tries(letter, tries):
            found.append(result)

    worker = threading.Thread(target=work, daemon=True)  # a receiver that drips an answer ends nothing
    worker.start()
    worker.join(tries.most_s)
    if worker.is_alive():
        return replace(found[0], attempts=found[-1].attempts + 1)
    return found[-1]


def _tries(letter: Letter, tries: Tries) -> Iterator[Delivered]:
    """The result of each try, until one needs no other."""
    for number, wait in enumerate(tries.waits, 1):
        time.sleep(wait)
        state, why, again = _post(letter, tries.timeout_s)
        yield Delivered(state, number, why)
        if not again:
            return


def _post(letter: Letter, timeout_s: float) -> tuple[State, str, bool]:
    """State, reason, and whether another try may help."""
    import requests

    try:
        with requests.post(
            letter.url,
            data=letter.body,
            headers=headers(letter, time.time()),
            timeout=timeout_s,
            allow_redirects=False,  # they would hand the signature to others
            stream=True,  # an answer's body is not read
        ) as answer:
            return _judged(answer.status_code)
    except (requests.exceptions.RequestException, ValueError) as error:  # its words hold the address
        return _without_answer(error, timeout_s)


def _without_answer(error: Exception, timeout_s: float) -> tuple[State, str, bool]:
    """What an error says of whether the letter arrived."""
    from requests import exceptions

    found: tuple[State, str, bool] = "failed", f"the address cannot be used ({type(error).__name__})", False
    if isinstance(error, exceptions.SSLError):
        found = "failed", "TLS failed: the certificate is not trusted, or the server speaks no TLS", False
    elif isinstance(error, exceptions.ConnectTimeout):
        found = "failed", f"no connection within {timeout_s:g} s", True
    elif isinstance(error, exceptions.Timeout):
        found = "unanswered", f"no answer within {timeout_s:g} s", False
    elif isinstance(error, exceptions.ConnectionError):
        broke: tuple[State, str, bool] = "unanswered", "the connection broke before an answer", False
        found = ("failed", "no connection", True) if _never_connected(error) else broke
    return found


def _judged(status: int) -> tuple[State, str, bool]:
    if 200 <= status < 300:
        return "sent", "", False
    why = f"the receiver answered {status}"
    if 300 <= status < 400:
        return "refused", f"{why}, a redirect, which is not followed", False
    if status >= 500 or status in BUSY:
        return "failed", why, True
    return "refused", why, False


def _never_connected(error: Exception) -> bool:
    from urllib3.exceptions import NewConnectionError

    cause = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(cause, NewConnectionError)


def headers(letter: Letter, now: float) -> Mapping[str, str]:
    """With the signature: HMAC-SHA256 over `TIMESTAMP.BODY`, so that an old letter cannot be sent again."""
    stamp = str(int(now))
    found = {
        "Content-Type": "application/json",
        "User-Agent": f"kascade/{__version__}",
        ID: letter.id,
        TIMESTAMP: stamp,
    }
    if letter.secret is not None:
        found[SIGNATURE] = f"sha256={signature(letter.secret, stamp, letter.body)}"
    return found


def signature(secret: str, stamp: str, body: bytes) -> str:
    """What a receiver computes to check a letter, in hex."""
    return hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
