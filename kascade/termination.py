"""SIGTERM as an exception, and what is tidied up at the end of a step."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

TERMINATED = 143  # what a shell reports for a command ended by SIGTERM
_tidying: list[tuple[int, Callable[[], object]]] = []  # with the process that asked for it


def when_the_step_ends(tidy: Callable[[], object]) -> None:
    """Let `tidy` be called when this step ends; outside of a step, when this process does."""
    _tidying.append((os.getpid(), tidy))


@atexit.register
def tidy_up() -> None:
    """Call what was asked for in this process, the last first, once. What a fork's parent asked for stays."""
    while _tidying:
        process, tidy = _tidying.pop()
        if process == os.getpid():
            tidy()


@contextlib.contextmanager
def termination_as_exit() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that what has to be tidied up is. Only in a main thread."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    with _handled(leave):
        yield


class Stopped(BaseException):
    """SIGTERM came. Not an Exception: nothing that handles errors may swallow it."""


@dataclass(slots=True)
class Stop:
    """Whether SIGTERM came. held: it is only noted then, and `check` raises later."""

    asked: bool = False
    held: bool = False

    def check(self) -> None:
        """Raises Stopped if SIGTERM came and is not held any longer."""
        if self.asked and not self.held:
            raise Stopped


@contextlib.contextmanager
def stop_requests() -> Iterator[Stop]:
    """While the block runs, SIGTERM raises Stopped in it, unless held. Only in a main thread."""
    stop = Stop(held=True)

    def leave(number: int, frame: FrameType | None) -> None:
        if not stop.asked:
            stop.asked = True
            if not stop.held:
                raise Stopped

    with _handled(leave):
        yield stop


@contextlib.contextmanager
def _handled(handler: object) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
