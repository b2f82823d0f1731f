"""Two pipelines in one folder: seen by the pulse of their steps.

On one machine a lock keeps the second one out. Pods of two pipelines share no lock, so each step touches its
state's file while it lives, and a run begins in a folder only where no other step has a pulse.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kascade.errors import Fault, UserError
from kascade.storage.run_folder import RunFolder

IN_POD = "KUBERNETES_SERVICE_HOST"
BEAT_S = 15.0
PATIENCE_S = 3 * BEAT_S  # a step without a beat for so long is dead


@contextmanager
def pulse(state: Path) -> Iterator[None]:
    """Touch a step's file while the block runs. Only in a pod: elsewhere the folder has its lock."""
    if IN_POD not in os.environ:
        yield
        return
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_S):
            with suppress(OSError):  # a volume that hangs for a moment
                os.utime(state)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(BEAT_S)


def refuse_others(folder: RunFolder, own: str) -> None:
    """Raise UserError where a step of another pipeline works in the folder. own: the step that asks.

    A step that was killed says that it runs, too. It is told from a living one by waiting for its pulse, for
    up to `PATIENCE_S`.
    """
    if IN_POD not in os.environ:
        return
    seen = _running(folder, own)
    deadline = time.monotonic() + PATIENCE_S
    while seen and time.monotonic() < deadline:
        time.sleep(BEAT_S / 5)
        now = _running(folder, own)
        if alive := [step for step, beat in now.items() if step in seen and beat != seen[step]]:
            what = f"another run works in this folder: {', '.join(alive)}"
            remedy = "wait for its end or terminate it, or enter another folder in `run`"
            raise UserError(Fault(str(folder.root), what, remedy=remedy))
        seen = {step: beat for step, beat in seen.items() if step in now}


def _running(folder: RunFolder, own: str) -> dict[str, int]:
    """Steps that say that they run, and when each last said so."""
    found = {}
    for state in RunFolder.tolerant(folder.root).states():
        if state["state"] == "running" and state["step"] != own:
            with suppress(FileNotFoundError):
                found[state["step"]] = folder.step_state(state["step"]).stat().st_mtime_ns
    return found
