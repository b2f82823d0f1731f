"""The sandbox's worker: a small interpreter that forks for every job and reports how each one ended.

It holds no program and no result: both are in memory files whose descriptors it only hands on.
"""

from __future__ import annotations
import __future__

import atexit
import builtins
import gc
import json
import os
import random
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from kascade.sandbox import confinement
from kascade.sandbox.protocol import EXITED, KILL, NOT_STARTED, RUN, STARTED, pack, unpack

# Imported once here, so that a job's own import of them costs nothing (and works without Landlock).
PRELOADED = (
    "array bisect cmath collections copy dataclasses datetime decimal enum fractions functools heapq io "
    "itertools math operator re statistics string sys time typing"
)
# What the executor of LiveCodeBench, whose tests the rows carry, puts before each program: all names of these
# modules, later ones first, and the modules themselves.
PRELUDE = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io "
    "sys json typing"
)
RECURSION_LIMIT = 50_000  # of that executor
LAZY = __future__.annotations.compiler_flag
MAX_EXCEPTION = 500  # characters kept of what a program raised


def main(control_fd: int) -> None:
    """Serve until the control socket closes, then kill what still runs."""
    for name in PRELOADED.split():
        __import__(name)
    _add_prelude()
    control = socket.socket(fileno=control_fd)
    kernel = confinement.Kernel.detect()
    _forget_our_own_path()
    control.send(json.dumps(asdict(kernel.isolation)).encode())
    wakeup, notify = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(notify)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, shared pages
    jobs: dict[int, int] = {}
    try:
        while _serve(control, wakeup, kernel, jobs):
            pass
    finally:
        for pid in jobs:
            _kill(pid)


def _add_prelude() -> None:
    """Names that every program finds, beside Python's own; `exit` and `quit` as an interactive one has them.

    As builtins, so that what a program itself defines differs from them.
    """
    names: dict[str, Any] = {}
    for module in PRELUDE.split():
        exec(f"from {module} import *", names)
    names |= {module: sys.modules[module] for module in PRELUDE.split()}
    names |= {"exit": sys.exit, "quit": sys.exit}
    for name in names.keys() - vars(builtins).keys():
        setattr(builtins, name, names[name])


def _forget_our_own_path() -> None:
    """Programs import the standard library and nothing else."""
    sys.path[:] = [path for path in sys.path if path in confinement.library_paths()]
    for name in [name for name in sys.modules if name.partition(".")[0] == "kascade"]:
        del sys.modules[name]


def _serve(control: socket.socket, wakeup: int, kernel: confinement.Kernel, jobs: dict[int, int]) -> bool:
    """Handle what is there to handle. False when the control socket closed."""
    ready, _, _ = select.select([control.fileno(), wakeup], [], [])
    if wakeup in ready:
        os.read(wakeup, 512)
        for pid, status, cpu_seconds in _ended():
            control.send(pack(EXITED, jobs.pop(pid), status, cpu_seconds))
    if control.fileno() in ready:
        packet, fds, _, _ = socket.recv_fds(control, 64, 4)
        if not packet:
            return False
        kind, job, _, _ = unpack(packet)
        if kind == RUN:
            _launch(control, job, fds, kernel, jobs)
        elif kind == KILL:
            for pid in [pid for pid, running in jobs.items() if running == job]:
                _kill(pid)
    return True


def _launch(
    control: socket.socket, job: int, fds: list[int], kernel: confinement.Kernel, jobs: dict[int, int]
) -> None:
    try:
        pid = os.fork()
    except OSError as error:
        control.send(pack(NOT_STARTED, job, error.errno or 0))
    else:
        if pid == 0:
            _become_job(control.fileno(), job, fds, kernel)
        jobs[pid] = job
    finally:
        for fd in fds:
            os.close(fd)


def _ended() -> Iterable[tuple[int, int, float]]:
    """Process id, exit status and CPU seconds of each child that ended."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # not yet leader of its group; kill() reaches it


def _become_job(control: int, number: int, fds: list[int], kernel: confinement.Kernel) -> None:
    """In the forked child: confine ourselves, say so, run the program, end. Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        order_fd, stdin, stdout, values = fds
        order = json.loads(os.pread(order_fd, os.fstat(order_fd).st_size, 0))
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        confinement.close_all_but({control, values, *kernel.fds()})
        random.seed(0)
        atexit._clear()  # ours are not the program's
        sys.setrecursionlimit(RECURSION_LIMIT)
        sys.set_int_max_str_digits(0)  # CPU time is the limit
        gc.enable()
        kernel.confine(order["limits"], order["folder"])
        # Said before the program's first line runs: it can neither unsay nor forge it.
        os.write(control, pack(STARTED, number))
        os.close(control)
    except BaseException:
        os._exit(1)
    _run(order, values)


def _run(order: dict[str, Any], values: int) -> None:
    """Run the program; write one line a call to `values`: V and the JSON value, or E and what it raised."""
    status = 0
    namespace: dict[str, Any] = {}
    try:
        name = "__main__" if order["function"] is None else "program"
        namespace["__name__"] = name
        # Annotations are not evaluated: starter code names classes (ListNode) that only its comments define.
        program = compile(order["source"], "<program>", "exec", LAZY, dont_inherit=True)
        exec(program, namespace)
        if order["function"] is not None:
            function = _find(namespace, order["function"])
            for call in order["calls"]:
                os.write(values, _answer(function, call))
    except SystemExit:
        pass
    except BaseException as error:
        status = 1
        os.write(values, _complaint(error))
    finally:
        try:
            _finish(namespace)
        except BaseException:  # the output limit, or a program that closed its output
            status = 1
        os._exit(status)


def _finish(namespace: dict[str, Any]) -> None:
    """What an interpreter does at its end: wait for threads, run exit handlers, write out what is left."""
    _join_threads()
    atexit._run_exitfuncs()
    namespace.clear()  # closes files that a program opened on its output
    streams: tuple[Any, ...] = (sys.stdout, sys.__stdout__)
    for stream in streams:  # the first may be a program's own object
        if not getattr(stream, "closed", False) and hasattr(stream, "flush"):
            stream.flush()


def _find(namespace: dict[str, Any], name: str) -> Any:
    if name not in namespace and "Solution" in namespace:
        return getattr(namespace["Solution"](), name)
    return namespace[name]


def _answer(function: Any, call: str) -> bytes:
    try:
        args = [json.loads(line) for line in call.split("\n")] if call else []
        return f"V{json.dumps(function(*args))}\n".encode()
    except Exception as error:
        return _complaint(error)


def _complaint(error: BaseException) -> bytes:
    try:
        text = f"{type(error).__name__}: {error}"[:MAX_EXCEPTION].replace("\n", " ")
    except BaseException:
        text = type(error).__name__
    return f"E{text}\n".encode("utf-8", "replace")


def _join_threads() -> None:
    """Scripts often do their work in a thread with a larger stack."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
