"""SIGTERM as an exception, for whoever has something to tidy up."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

TERMINATED = 143  # what a shell reports for a command ended by SIGTERM


@contextlib.contextmanager
def termination_as_exit() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that what has to be tidied up is. Only in a main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
