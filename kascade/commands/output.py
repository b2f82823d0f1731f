"""What the verbs print: JSON or text on stdout, remarks and faults on stderr."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kascade.errors import Fault, UserError

if TYPE_CHECKING:
    from rich.console import Console

ALIKE = 3  # places of one error that are shown; more are counted
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def console() -> Console:
    """Where people read remarks: stderr, plain when it is not a terminal."""
    from rich.console import Console

    return Console(stderr=True)


def emit(value: Any) -> None:
    """One JSON value on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


def collapsed(faults: Sequence[Fault]) -> list[str]:
    """Each error; of the same one in many places the first few, then how many more there are."""
    kinds = [(fault.what, fault.allowed, fault.remedy) for fault in faults]
    numbers, seen = Counter(kinds), Counter[tuple[str, str | None, str | None]]()
    lines = []
    for fault, kind in zip(faults, kinds, strict=True):
        seen[kind] += 1
        if seen[kind] <= ALIKE:
            lines.append(str(fault))
        elif seen[kind] == ALIKE + 1:
            lines.append(f"    the same in {numbers[kind] - ALIKE} more places: {fault.what}")
    return lines


def refuse_taken_port(host: str, port: int) -> None:
    """Raise UserError when something listens there already."""
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            what = "another program uses this port" if taken else str(error.strerror or error)
            raise UserError(Fault(f"{host}:{port}", what, remedy="give another port with --port")) from error


def duration(seconds: float) -> str:
    """ "2 h 05 min", "3 min 20 s", "12 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def counted(number: int, noun: str) -> str:
    """ "1 row", "2 rows"."""
    from kascade.tracking.wording import count  # not needed to say what the verbs are

    return count(number, noun)
