"""Tasks as forks of a process that has already loaded the library.

A task is a process of its own, and importing the library costs it several CPU seconds each time: with
some forty tasks a cascade, minutes. `kfp.local` starts tasks through one function, which is replaced here
by a fork that runs the same program with the same arguments. A fork also dies with the runner, whatever
kills that.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import importlib
import logging
import multiprocessing
import os
import random
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from kfp.dsl import executor_main
from kfp.local import subprocess_task_handler

from kascade.termination import TERMINATED

PR_SET_PDEATHSIG = 1
_terminated: list[int] = []  # SIGTERM, once it came
_print = builtins.print  # kfp.local indents the output of tasks by replacing it
_run_as_subprocess = subprocess_task_handler.run_local_subprocess


def fork_tasks(library: Sequence[str]) -> None:
    """Import the modules of `library`, and from now on run `kfp.local`'s tasks as forks of this process.

    A module that cannot be imported is left to the tasks, whose error the user then sees.
    """
    for module in library:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    subprocess_task_handler.run_local_subprocess = _run_forked


def _run_forked(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
    """Run a command `sh -ec SCRIPT SOURCE ARGUMENTS...`, as kfp's function of that signature does.

    SCRIPT writes SOURCE to a file and calls kfp's executor on it with ARGUMENTS. Anything else that it
    does (installing packages, say) needs the shell, and goes to kfp's own function.
    """
    match full_command:
        case ["sh", "-ec", script, source, *arguments] if "executor_main" in script and "pip " not in script:
            return _fork(source, arguments, env_vars or {})
        case _:
            return int(_run_as_subprocess(full_command, env_vars))


def _fork(source: str, arguments: list[str], env_vars: dict[str, str]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_task, args=(os.getpid(), source, arguments, env_vars))
    process.start()
    process.join()
    if _terminated:
        raise SystemExit(TERMINATED)
    assert process.exitcode is not None
    return process.exitcode


def wait_for_task_when_terminated() -> None:
    """Let SIGTERM, which goes to the whole process group, end the task first: it may have a state to save."""

    def leave(number: int, frame: FrameType | None) -> None:
        _terminated.append(number)
        if not multiprocessing.active_children():
            raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, leave)


def _task(runner: int, source: str, arguments: list[str], env_vars: dict[str, str]) -> None:
    """The body of the fork: undo what the runner did to the process, then do what SCRIPT does."""
    _die_with(runner)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    builtins.print = _print
    logging.getLogger().handlers.clear()
    random.seed()
    os.environ.update(env_vars)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "ephemeral_component.py"
        program.write_text(source, encoding="utf-8")
        sys.argv = ["executor_main", "--component_module_path", str(program), *arguments]
        executor_main.executor_main()


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends; on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was asked
            os._exit(1)
