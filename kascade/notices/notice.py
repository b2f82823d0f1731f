"""What a run says of itself, once to each receiver: a record in its folder is written before anything is
sent."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kascade.errors import KascadeError, redact
from kascade.notices.delivery import Letter, Tries, deliver
from kascade.recipe.identity import short_hash
from kascade.recipe.notify import Event, Notify
from kascade.recipe.schema import Recipe
from kascade.storage.files import read_json, write_json
from kascade.storage.run_folder import RunFolder
from kascade.storage.secrets import read_secret
from kascade.storage.store import create_file

Detail = str | float | Sequence[str] | None
log = logging.getLogger(__name__)
SENDING = "sending"  # a record that says so after its process ended: nobody knows whether it arrived
LONGEST = 3000  # characters of a text


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that happened. key: what makes it this very one, so that it is told once.

    text: a sentence for people. details: for programs.
    """

    event: Event
    key: str
    text: str
    details: Mapping[str, Detail]


def tell(layout: RunFolder, recipe: Recipe, notice: Notice) -> None:
    """Tell every receiver that wants this event, each at most once. Never raises, and takes bounded time."""
    for number, receiver in enumerate(recipe.notify):
        if receiver.events and notice.event not in receiver.events:
            continue
        try:
            _tell(layout, recipe, notice, receiver, f"notify.{number}")
        except (KascadeError, OSError, ValueError) as error:
            words = " ".join(str(error).split())
            log.warning("%s was not told that the run %s: %s", shown(receiver), words_of(notice.event), words)


def _tell(layout: RunFolder, recipe: Recipe, notice: Notice, receiver: Notify, where: str) -> None:
    mark = short_hash([notice.event, notice.key, receiver.url, receiver.format])
    path = layout.notice(notice.event, mark)
    record = {
        "event": notice.event,
        "to": shown(receiver),
        "text": redact(notice.text)[:LONGEST],
        "time": _now(),
        "state": SENDING,
    }
    url = receiver.url if "://" in receiver.url else read_secret(receiver.url, f"{where}.url")
    secret = None if receiver.secret is None else read_secret(receiver.secret, f"{where}.secret")
    if not _claimed(path, record):
        return
    letter = Letter(url, _body(layout, recipe, notice, receiver, mark), mark, secret)
    found = deliver(letter, Tries(receiver.attempts, receiver.timeout_s, receiver.backoff_s))
    write_json(path, {**record, "state": found.state, "attempts": found.attempts, "why": found.why})
    level = logging.INFO if found.state == "sent" else logging.WARNING
    log.log(level, "%s: %s to %s. %s", words_of(notice.event), found.state, shown(receiver), found.why)


def _claimed(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether this process may send: nobody did before, or what was sent certainly did not arrive."""
    if create_file(path, (json.dumps(record, indent=1) + "\n").encode()):
        return True
    return bool(read_json(path).get("state") == "failed")


def _body(layout: RunFolder, recipe: Recipe, notice: Notice, receiver: Notify, mark: str) -> bytes:
    text = redact(notice.text)[:LONGEST]
    if receiver.format == "slack":
        words = f"{recipe.name} {words_of(notice.event)}. {text}"
        for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            words = words.replace(sign, name)
        return json.dumps({"text": words}, ensure_ascii=False).encode()
    body = {
        "id": mark,
        "event": notice.event,
        "recipe": recipe.name,
        "run": layout.root.name,
        "time": _now(),
        "text": text,
        "details": {name: _redacted(value) for name, value in notice.details.items()},
    }
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _redacted(value: Detail) -> Detail:
    if isinstance(value, str):
        return redact(value)
    return value if isinstance(value, int | float) or value is None else [redact(one) for one in value]


def words_of(event: Event) -> str:
    """ "waiting for approval"."""
    return event.replace("_", " ")


def shown(receiver: Notify) -> str:
    """How a receiver is called where people read it: an address in a variable by the variable's name."""
    scheme, separator, rest = receiver.url.partition("://")
    return f"{scheme}://{rest.partition('/')[0].partition('?')[0]}" if separator else receiver.url


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
