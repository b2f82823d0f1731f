"""A step as a task of its own process: its log, its state and its own error are in the run's folder.

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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeGuard

from kascade.errors import KascadeError, UserError, redact
from kascade.run.pulse import pulse
from kascade.storage.files import DISK, disk_words
from kascade.storage.run_folder import RunFolder, StepError, StepState
from kascade.termination import tidy_up

ERROR_BEGINS, ERROR_ENDS = "--- error of this step ---", "--- end of the error ---"
WAITS_BEGIN, WAITS_END = "--- this run waits ---", "--- end of what it waits for ---"
COPIED_WITHIN_S = 30.0  # of a step's end: its last words


@contextmanager
def step_process(run: str, step: str) -> Iterator[None]:
    """Run the body of a pipeline's task as `step` of the run in folder `run`. The error is raised again."""
    layout = RunFolder(Path(run))
    layout.forget_error(step)
    started = time.time()
    _write_state(layout, step, "running", started)
    try:
        with pulse(layout.step_state(step)), _tee(layout.log(step)):
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
            yield
    except BaseException as error:
        with layout.log(step).open("a", encoding="utf-8") as log:
            log.write(redact(traceback.format_exc()))
        layout.write_error(step, describe(error))
        _write_state(layout, step, "failed", started)
        sys.stderr.write(marked(describe(error)) + "\n")
        raise
    _write_state(layout, step, "succeeded", started)


def marked(error: StepError) -> str:
    """An error's own words as they end a pod's log, for whoever reads no more of it."""
    kind = "" if error["faults"] else f"{error['type']}: "
    return f"{ERROR_BEGINS}\n{kind}{error['message']}\n{ERROR_ENDS}"


def error_in_log(log: str) -> str | None:
    """The last error that `marked` wrote into a pod's log; None where there is none."""
    return _between(log, ERROR_BEGINS, ERROR_ENDS)


def marked_wait(words: str) -> str:
    """What a run waits for, as its report's pod says it, for whoever only sees that the run ended."""
    return f"{WAITS_BEGIN}\n{words}\n{WAITS_END}"


def wait_in_log(log: str) -> str | None:
    """What `marked_wait` wrote last into a pod's log; None where the run waits for nothing."""
    return _between(log, WAITS_BEGIN, WAITS_END)


def _between(log: str, begin: str, end: str) -> str | None:
    _, begun, rest = log.rpartition(f"{begin}\n")
    words, ended, _ = rest.partition(f"\n{end}")
    return words if begun and ended else None


def describe(error: BaseException) -> StepError:
    return {
        "type": type(error).__name__,
        "message": redact(disk_words(error) if _is_of_the_disk(error) else str(error)),
        "exit_code": error.exit_code if isinstance(error, KascadeError) else 1,
        "faults": error.as_json() if isinstance(error, UserError) else [],
    }


def _is_of_the_disk(error: BaseException) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in DISK


def _write_state(layout: RunFolder, step: str, state: str, started: float) -> None:
    seconds = None if state == "running" else round(time.time() - started, 3)
    layout.write_state(StepState(step=step, state=state, started=started, seconds=seconds))


@contextmanager
def _tee(path: Path) -> Iterator[None]:
    """Copy what is written to stdout and stderr, by child processes and native code too, to a file.

    A process of its own does it, so that the last words of a crash are kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tee = subprocess.Popen(["tee", "-a", str(path)], stdin=subprocess.PIPE)
    assert tee.stdin is not None
    try:
        with _redirected(sys.stdout, tee.stdin), _redirected(sys.stderr, tee.stdin):
            yield
    finally:
        tee.stdin.close()
        tidy_up()  # a server that the step started writes into the same pipe, which ends with its last writer
        with suppress(subprocess.TimeoutExpired):  # whatever else outlives the step keeps its copy
            tee.wait(COPIED_WITHIN_S)


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
