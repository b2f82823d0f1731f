"""A step as a task of its own process: its log, its state and its own error lie in the run's folder.

Whoever started the process (a launcher here, a pod there) reads from these files what happened:

    logs/STEP.log          all that the task and the processes it started wrote, and the traceback
    logs/STEP.state.json   {step, state: running | succeeded | failed, started, seconds}; started in Unix s
    logs/STEP.error.json   {type, message, exit_code, faults}, only while the last attempt failed
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypedDict

from kascade.errors import KascadeError, UserError
from kascade.storage.files import write_json
from kascade.storage.layout import RunLayout


class TaskError(TypedDict):
    """A task's own error; `faults` as `UserError.as_json` gives them, [] for any other error."""

    type: str
    message: str
    exit_code: int
    faults: list[dict[str, str | None]]


class TaskState(TypedDict):
    """How a task stands; `seconds` is None while it runs (or was killed)."""

    step: str
    state: str
    started: float
    seconds: float | None


@contextmanager
def pipeline_task(run: str, step: str) -> Iterator[None]:
    """Run the body of a pipeline's task as `step` of the run in folder `run`. The error is raised again."""
    layout = RunLayout(Path(run))
    layout.task_error(step).unlink(missing_ok=True)
    started = time.time()
    _write_state(layout, step, "running", started)
    try:
        with _tee(layout.log(step)):
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
            yield
    except BaseException as error:
        with layout.log(step).open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        write_json(layout.task_error(step), describe(error))
        _write_state(layout, step, "failed", started)
        raise
    _write_state(layout, step, "succeeded", started)


def describe(error: BaseException) -> TaskError:
    return {
        "type": type(error).__name__,
        "message": str(error),
        "exit_code": error.exit_code if isinstance(error, KascadeError) else 1,
        "faults": error.as_json() if isinstance(error, UserError) else [],
    }


def _write_state(layout: RunLayout, step: str, state: str, started: float) -> None:
    seconds = None if state == "running" else round(time.time() - started, 3)
    write_json(layout.task_state(step), TaskState(step=step, state=state, started=started, seconds=seconds))


@contextmanager
def _tee(path: Path) -> Iterator[None]:
    """Copy what is written to stdout and stderr, by child processes and native code too, to a file.

    A process of its own does it, so that the last words of a crash are kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(["tee", "-a", str(path)], stdin=subprocess.PIPE) as tee:
        assert tee.stdin is not None
        with _redirected(sys.stdout, tee.stdin), _redirected(sys.stderr, tee.stdin):
            yield
        tee.stdin.close()


@contextmanager
def _redirected(stream: IO[str], target: IO[bytes]) -> Iterator[None]:
    """Let the descriptor behind `stream` be that of `target` for a while."""
    stream.flush()
    descriptor = stream.fileno()
    saved = os.dup(descriptor)
    os.dup2(target.fileno(), descriptor)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(saved, descriptor)
        os.close(saved)
