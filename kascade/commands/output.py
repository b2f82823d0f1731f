"""What the verbs print: JSON or text on stdout, remarks and faults on stderr."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def console() -> Console:
    """Where people read remarks: stderr, plain when it is not a terminal."""
    from rich.console import Console

    return Console(stderr=True)


def emit(value: Any) -> None:
    """One JSON value on stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


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
