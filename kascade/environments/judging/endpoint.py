"""A judge behind an OpenAI-compatible endpoint: retries, rate limit, cache on disk, recorded transcript."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kascade.data.json_text import SURROGATE
from kascade.environments.judging.judge import Conversation, JudgeError
from kascade.environments.waiting import seconds_to_wait
from kascade.recipe.judge_model import JudgeModel
from kascade.storage.files import read_json, write_json

PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}  # statuses that a later try may not see again
DOWN_AFTER = 3  # requests in a row that never reached the endpoint: then the next ones fail without waiting
DOWN_FOR_S = 30.0
PIECE, MOST_BYTES = 2**16, 2**26  # of an answer: it is a text, and one without end must not fill the memory
SHOWN_BODY = 300  # characters of an error's body that are reported


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


class _Passing(Exception):
    """A failure that may pass. retry_after: seconds the endpoint asked to wait."""

    def __init__(self, what: str, *, reached: bool, retry_after: float | None = None) -> None:
        super().__init__(what)
        self.reached, self.retry_after = reached, retry_after


@dataclass(slots=True)
class EndpointJudge:
    """Asks `POST {url}/chat/completions`.

    folder: where the cache (one file a question) and transcript.jsonl (every question with its answer) go;
    None keeps neither.
    """

    part: JudgeModel
    folder: Path | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next_request: float = 0.0
    _unreached: int = 0
    _down_until: float = 0.0

    @property
    def concurrency(self) -> int:
        return self.part.concurrency

    def ask(self, conversation: Conversation, *, draw: int = 0) -> str:
        """The text of the first choice. Raises JudgeError after the last attempt, or for a refusal."""
        request = self._request(conversation)
        key = hashlib.sha256(json.dumps([self.part.url, request, draw], sort_keys=True).encode()).hexdigest()
        if (known := self._cached(key)) is not None:
            return known
        started, attempts, answer, problem = time.monotonic(), 0, None, None
        try:
            for attempts in range(1, self.part.attempts + 1):
                self._refuse_while_down()
                self._wait_for_turn()
                try:
                    answer = self._send(request)
                    break
                except _Passing as error:
                    problem = str(error)
                    self._note_failure(error)
                    if attempts < self.part.attempts:
                        time.sleep(self._pause(attempts, error.retry_after))
        except JudgeError as error:
            problem = str(error)
        record = {"key": key, "draw": draw, "request": request, "answer": answer, "attempts": attempts}
        self._record({**record, "error": None if answer is not None else problem}, started)
        if answer is None:
            raise JudgeError(f"{self.part.url}: {problem} ({attempts} tries)")
        if self.folder is not None and self.part.cache:
            write_json(
                self._cache_file(self.folder, key), {"request": request, "draw": draw, "answer": answer}
            )
        return answer

    def _request(self, conversation: Conversation) -> dict[str, Any]:
        return {
            "model": self.part.model,
            "messages": [dict(message) for message in conversation],
            "temperature": self.part.temperature,
            "top_p": self.part.top_p,
            "max_tokens": self.part.max_tokens,
        }

    def _send(self, request: Mapping[str, Any]) -> str:
        """One try. Raises _Passing for what may pass, JudgeError for what will not."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.part.api_key_env is not None:
            key = os.environ.get(self.part.api_key_env)
            if not key:
                raise JudgeError(f"the environment variable {self.part.api_key_env} is not set")
            headers["Authorization"] = f"Bearer {key}"
        url = f"{str(self.part.url).rstrip('/')}/chat/completions"
        sent = urllib.request.Request(url, json.dumps(request).encode(), headers, method="POST")
        try:
            with urllib.request.build_opener(_NoRedirects).open(
                sent, timeout=self.part.timeout_s
            ) as response:
                body = _body(response, time.monotonic() + self.part.timeout_s)
        except urllib.error.HTTPError as error:
            raise _refusal(error) from None
        except (OSError, http.client.HTTPException) as error:  # unreachable, reset, timed out, cut short
            raise _Passing(f"cannot be reached: {error or type(error).__name__}", reached=False) from None
        self._unreached = 0
        return _content(body)

    def _refuse_while_down(self) -> None:
        if time.monotonic() < self._down_until:
            raise JudgeError("cannot be reached; it was tried a moment ago")

    def _note_failure(self, error: _Passing) -> None:
        with self._lock:
            self._unreached = 0 if error.reached else self._unreached + 1
            if self._unreached >= DOWN_AFTER * self.part.attempts:
                self._down_until, self._unreached = time.monotonic() + DOWN_FOR_S, 0

    def _wait_for_turn(self) -> None:
        """Hold to `requests_per_minute`: each request takes the next free slot."""
        if self.part.requests_per_minute is None:
            return
        with self._lock:
            slot = max(self._next_request, time.monotonic())
            self._next_request = slot + 60 / self.part.requests_per_minute
        time.sleep(max(0.0, slot - time.monotonic()))

    def _pause(self, attempt: int, retry_after: float | None) -> float:
        """Exponential backoff with jitter, or as long as the endpoint asked for, up to the limit."""
        backoff = self.part.backoff_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
        return min(self.part.max_backoff_s, backoff if retry_after is None else retry_after)

    @staticmethod
    def _cache_file(folder: Path, key: str) -> Path:
        return folder / "cache" / key[:2] / f"{key}.json"

    def _cached(self, key: str) -> str | None:
        if self.folder is None or not self.part.cache:
            return None
        file = self._cache_file(self.folder, key)
        return str(read_json(file)["answer"]) if file.is_file() else None

    def _record(self, record: Mapping[str, Any], started: float) -> None:
        if self.folder is None:
            return
        line = json.dumps({**record, "seconds": round(time.monotonic() - started, 3)}, ensure_ascii=False)
        with self._lock:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "transcript.jsonl"
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(line + "\n")


def _refusal(error: urllib.error.HTTPError) -> Exception:
    what = f"HTTP {error.code}: {_shown(error)}"
    if error.code in PASSING:
        return _Passing(what, reached=True, retry_after=seconds_to_wait(error.headers.get("Retry-After")))
    return JudgeError(what)


def _shown(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(SHOWN_BODY).decode("utf-8", "replace").strip() or error.reason
    except (OSError, http.client.HTTPException):
        return str(error.reason)


def _body(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The whole answer, held to a deadline and a size. Raises OSError, and _Passing for too long a one."""
    found = bytearray()
    while piece := response.read1(PIECE):
        found += piece
        if len(found) > MOST_BYTES:
            raise _Passing(f"answers with more than {MOST_BYTES:,} bytes", reached=True)
        if time.monotonic() >= deadline:
            raise TimeoutError("no whole answer in time")
    if response.length:  # bytes that were promised
        raise http.client.IncompleteRead(bytes(found), response.length)
    return bytes(found)


def _content(body: bytes) -> str:
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise _Passing(f"answered with no completion: {body[:SHOWN_BODY]!r}", reached=True) from None
    if not isinstance(content, str) or not content.strip():
        raise _Passing("answered with an empty completion", reached=True)
    return SURROGATE.sub("\ufffd", content)  # half a character, which no file holds
