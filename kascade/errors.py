"""One hierarchy of errors; every message says what, where, what is allowed and what to do.

No message repeats a secret that somebody wrote into an address: `redact` takes it out of all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

# `user:password@` after a scheme. The first form is for passwords with a slash: what stands where a port
# would is then no number. hf://NAME@REVISION is the one address whose name may be followed by an @.
_USER = re.compile(r"://[^\s/:]+:(?!\d+(?:[/?#]|$))\S*@|(?<!\bhf)://[^/\n]*@")
_COLLAPSED = re.compile(r"\b(https?|s3|gs|ftp|(?:postgres|mysql)[\w+]*):/(?=[^/])")  # what paths make of ://
_QUERY = re.compile(
    r"(?i)([?&;][\w.-]*(?:passw(?:or)?d|pwd|token|secret|signature|api[_-]?key|access[_-]?key|credential)[\w.-]*"
    r"|[?&;](?:key|sig|auth))=[^&#\s'\"]+"
)


def redact(text: str) -> str:
    """`text` without the user names, passwords and keys of the addresses in it."""
    if ":/" not in text:
        return text
    whole = _COLLAPSED.sub(r"\1://", text)
    found = _QUERY.sub(r"\1=***", _USER.sub("://***@", whole))
    return text if found == whole else found


def holds_secret(text: str) -> bool:
    """Whether an address in `text` holds a user name, a password or a key."""
    return any(redact(word) != word for word in text.split())


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in what the user gave.

    where: file and line, or the dotted name of the field ("recipe.yaml:12 stages.1.steps").
    what: the fault itself; allowed: the values that would do; remedy: the next thing to try.
    """

    where: str
    what: str
    allowed: str | None = None
    remedy: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(text := getattr(self, field.name), str):
                object.__setattr__(self, field.name, redact(text))

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}"]
        if self.allowed:
            lines.append(f"    allowed: {self.allowed}")
        if self.remedy:
            lines.append(f"    to do:   {self.remedy}")
        return "\n".join(lines)


class KascadeError(Exception):
    """Root of all errors raised on purpose. `exit_code` is what the CLI returns for it."""

    exit_code = 1

    def __init__(self, *parts: object) -> None:
        super().__init__(*(redact(part) if isinstance(part, str) else part for part in parts))


class UserError(KascadeError):
    """The input is at fault; carries all faults found, not only the first."""

    exit_code = 2

    def __init__(self, faults: Sequence[Fault] | Fault) -> None:
        self.faults = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))

    def as_json(self) -> list[dict[str, str | None]]:
        return [asdict(fault) for fault in self.faults]

    def __reduce__(self) -> tuple[type[UserError], tuple[tuple[Fault, ...]]]:
        return type(self), (self.faults,)


class CheckpointError(KascadeError):
    """A checkpoint is missing, half-written, or not the one that was asked for."""


class StorageError(KascadeError):
    """A store cannot be reached, refuses the keys, is full, or does not hold what was asked for."""


class ClusterError(KascadeError):
    """Kubeflow cannot be reached, refuses the token, or refuses a request."""


class GuardStop(KascadeError):
    """The recipe says to stop here: a regression stayed after every allowed recovery."""

    exit_code = 3


class TrainingStopped(KascadeError):
    """A limit of the recipe was passed during training (non-finite loss, log-probability gap, ...)."""

    exit_code = 4
