"""Hostile programs lose every time, and harm nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kascade.errors import UserError
from kascade.sandbox import programs as sandbox_module
from kascade.sandbox.programs import Execution, Limits, Result, Sandbox
from kascade.sandbox.protocol import Isolation

QUICK = Limits(cpu_seconds=1, wall_seconds=5.0, memory_bytes=128 * 1024**2, output_bytes=64 * 1024)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as opened:
        yield opened


@pytest.fixture(autouse=True)
def works_afterwards(sandbox: Sandbox) -> Iterator[None]:
    """Whatever a program did, the next one runs in the same worker."""
    worker = sandbox._worker
    yield
    assert run(sandbox, "print(6 * 7)").stdout == "42\n"
    assert worker is None or sandbox._worker is worker


def run(sandbox: Sandbox, source: str, stdin: str = "", limits: Limits = QUICK) -> Result:
    (result,) = sandbox.run_many([Execution(source, stdin=stdin, limits=limits)])
    assert result.error is None
    return result


def call(sandbox: Sandbox, source: str, *calls: str) -> Result:
    (result,) = sandbox.run_many([Execution(source, function="f", calls=calls, limits=QUICK)])
    assert result.error is None
    return result


# --- sound programs -----------------------------------------------------------------------------------


def test_script_reads_stdin_and_prints(sandbox: Sandbox) -> None:
    result = run(sandbox, "import sys\nfor line in sys.stdin: print(int(line) + 1)", "1\n2\n")
    assert result.finished
    assert result.stdout == "2\n3\n"


def test_calls_return_json_and_exceptions_stay_with_their_call(sandbox: Sandbox) -> None:
    result = call(sandbox, "def f(x):\n    return [x, 6 / x]", "2", "0", "[]")
    assert result.values == ("[2, 3.0]", None, None)
    assert result.exception == "ZeroDivisionError: division by zero"


def test_method_of_solution_class(sandbox: Sandbox) -> None:
    source = "class Solution:\n    def f(self, a, b):\n        return a * b"
    assert call(sandbox, source, "6\n7").values == ("42",)


def test_standard_library_and_large_stack_threads_work(sandbox: Sandbox) -> None:
    source = (
        "import calendar, csv, sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(2**25)\n"
        "def depth(n): return 0 if n == 0 else 1 + depth(n - 1)\n"
        "threading.Thread(target=lambda: print(depth(20000))).start()"
    )
    assert run(sandbox, source).stdout == "20000\n"


def test_same_program_has_same_output_in_every_worker(sandbox: Sandbox) -> None:
    job = Execution("import random\nprint(random.random(), list({'a', 'b', 'c'}), hash('x'))", limits=QUICK)
    with Sandbox() as other:
        assert sandbox.run_many([job, job]) != []
        outputs = {result.stdout for result in (*sandbox.run_many([job, job]), *other.run_many([job]))}
    assert len(outputs) == 1


def test_results_keep_the_order_of_jobs(sandbox: Sandbox) -> None:
    jobs = [
        Execution(f"import time; time.sleep({0.05 * (i % 3)}); print({i})", limits=QUICK) for i in range(9)
    ]
    assert [int(result.stdout) for result in sandbox.run_many(jobs)] == list(range(9))


@pytest.mark.parametrize(
    "source", ["def f(:", "raise ValueError('no')", "1 / 0", "import numpy", "\0", "\ud800"]
)
def test_broken_program_is_the_programs_fault(sandbox: Sandbox, source: str) -> None:
    result = run(sandbox, source)
    assert not result.finished
    assert result.exception


# --- resources ----------------------------------------------------------------------------------------


def test_endless_loop_ends_by_cpu_time(sandbox: Sandbox) -> None:
    result = run(sandbox, "while True: pass")
    assert result.timed_out
    assert result.cpu_seconds < 2.5


def test_loop_that_ignores_signals_ends_too(sandbox: Sandbox) -> None:
    deaf = "import signal\nfor n in {*range(1, 32)} - {9, 19}: signal.signal(n, signal.SIG_IGN)"
    assert run(sandbox, f"{deaf}\nwhile True: pass").timed_out


def test_sleeper_ends_by_wall_time(sandbox: Sandbox) -> None:
    start = time.monotonic()
    result = run(sandbox, "import time; time.sleep(60)", limits=Limits(wall_seconds=0.4))
    assert result.timed_out
    assert time.monotonic() - start < 5


def test_memory_bomb(sandbox: Sandbox) -> None:
    result = run(sandbox, "x = []\nwhile True: x.append(bytearray(1 << 24))")
    assert result.exception is not None
    assert result.exception.startswith("MemoryError")


def test_endless_output_is_capped(sandbox: Sandbox) -> None:
    result = run(sandbox, "while True:\n    try: print('x' * 4096)\n    except OSError: pass")
    assert len(result.stdout) <= QUICK.output_bytes
    assert not result.finished


def test_value_beyond_the_output_limit_is_not_a_value(sandbox: Sandbox) -> None:
    assert "1" not in call(sandbox, "def f():\n    return 'x' * 10**6", "").values


@pytest.mark.parametrize(
    "source",
    [
        "import os\nwhile True: os.fork()",
        "import os; os.posix_spawn('/bin/sh', ['sh'], {})",
        "import os; os.execv('/bin/sh', ['sh'])",
        "import subprocess; subprocess.run(['true'])",
        "import multiprocessing as m; p = m.Process(target=print); p.start()",
    ],
)
def test_no_other_process(sandbox: Sandbox, source: str) -> None:
    result = run(sandbox, source)
    assert result.exception is not None
    assert "Permission" in result.exception or "not permitted" in result.exception


def test_thread_bomb_is_contained(sandbox: Sandbox) -> None:
    source = (
        "import threading, time\nthreading.stack_size(1 << 20)\n"
        "while True: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    assert not run(sandbox, source).finished


def test_limits_cannot_be_raised(sandbox: Sandbox) -> None:
    source = "import resource as r\nr.setrlimit(r.RLIMIT_CPU, (99, 99))"
    assert not run(sandbox, source).finished


# --- network, files, processes ------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK"])
def test_no_sockets(sandbox: Sandbox, family: str) -> None:
    result = run(sandbox, f"import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM)")
    assert result.exception == "PermissionError: [Errno 1] Operation not permitted"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/proc/self/environ",
        "/proc/1/cmdline",
        "/proc/self/mem",
        "/root",
        "/home",
        "/dev/mem",
        "/sys",
    ],
)
def test_nothing_to_read(sandbox: Sandbox, path: str) -> None:
    result = run(
        sandbox,
        f"import os\nprint(os.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}).read())",
    )
    assert not result.finished
    assert result.stdout == ""


def test_files_of_a_run_and_our_own_code_are_out_of_reach(sandbox: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hunter2")
    for path in (secret, Path(sandbox_module.__file__)):
        result = run(sandbox, f"print(open({str(path)!r}).read())")
        assert result.exception is not None
        assert result.exception.startswith("PermissionError")
    assert not run(sandbox, "import kascade").finished
    assert not run(sandbox, "import sys; sys.path.append('/'); import pydantic").finished


def test_environment_holds_no_secrets(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "hunter2")
    with Sandbox() as fresh:
        assert "hunter2" not in run(fresh, "import os; print(dict(os.environ))").stdout


@pytest.mark.parametrize("mode", ["w", "a", "r+"])
def test_nothing_to_write(sandbox: Sandbox, tmp_path: Path, mode: str) -> None:
    target = tmp_path / "file"
    target.write_text("before")
    assert not run(sandbox, f"open({str(target)!r}, {mode!r}).write('after')").finished
    assert target.read_text() == "before"


@pytest.mark.parametrize(
    "what", ["os.unlink(p)", "os.rename(p, p + 'x')", "os.symlink('/etc', p + 'x')", "os.mkdir(p + 'd')",
             "os.chmod(p, 0)", "os.truncate(p, 0)", "os.link(p, p + 'x')"],
)  # fmt: skip
def test_nothing_to_change(sandbox: Sandbox, tmp_path: Path, what: str) -> None:
    target = tmp_path / "file"
    target.write_text("before")
    mode = target.stat().st_mode
    assert not run(sandbox, f"import os\np = {str(target)!r}\n{what}").finished
    assert [*tmp_path.iterdir()] == [target]
    assert (target.read_text(), target.stat().st_mode) == ("before", mode)


def test_private_folder_is_writable_and_wiped(sandbox: Sandbox) -> None:
    limits = Limits(cpu_seconds=1, wall_seconds=5.0, private_tmp=True)
    source = (
        "import os\nos.mkdir('d'); open('d/x', 'w').write('1'); print(open('d/x').read(), os.getcwd())\n"
        "open('/tmp/escaped-from-the-sandbox', 'w')"
    )
    result = run(sandbox, source, limits=limits)
    content, folder = result.stdout.split()
    assert content == "1"
    assert result.exception is not None
    assert result.exception.startswith("PermissionError")
    assert not Path(folder).exists()
    assert not Path("/tmp/escaped-from-the-sandbox").exists()


def test_no_way_out_of_the_private_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2")
    limits = Limits(cpu_seconds=1, wall_seconds=5.0, private_tmp=True)
    for attempt in (f"os.symlink({str(tmp_path / 'token')!r}, 'l')", "os.link('/etc/passwd', 'l')", "pass"):
        source = (
            f"import os\n{attempt}\nprint(open('l' if os.path.lexists('l') else '../../etc/passwd').read())"
        )
        result = run(sandbox, source, limits=limits)
        assert not result.finished
        assert result.stdout == ""


@pytest.mark.parametrize("victim", ["os.getppid()", "OURS", "-1", "0"])
def test_nobody_to_kill(sandbox: Sandbox, victim: str) -> None:
    named = victim.replace("OURS", str(os.getpid()))  # ids of tests must not differ between their processes
    result = run(sandbox, f"import os; os.kill({named}, 9)")
    assert result.exception == "PermissionError: [Errno 1] Operation not permitted"


def test_signals_cannot_be_sent_through_descriptors(sandbox: Sandbox) -> None:
    source = f"import fcntl, os\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, {os.getpid()})"
    assert not run(sandbox, source).finished


@pytest.mark.parametrize("number", [101, 310, 311, 165, 321, 250, 246, 434, 319, 425])
def test_dangerous_system_calls_fail(sandbox: Sandbox, number: int) -> None:
    """ptrace, process_vm_readv and writev, mount, bpf, keyctl, kexec, pidfd_open, memfd_create, io_uring."""
    source = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"print(libc.syscall({number}, 0, 0, 0, 0), ctypes.get_errno())"
    )
    result = run(sandbox, source)
    assert result.stdout == "-1 1\n"


def test_no_descriptor_of_ours_is_left(sandbox: Sandbox) -> None:
    source = (
        "import os\nfor fd in range(3, 64):\n"
        "    try: print(os.fstat(fd).st_mode >> 12)\n"
        "    except OSError: pass"
    )
    assert set(run(sandbox, source).stdout.split()) == {"8"}  # memory files: its own results (and input)


# --- forging ------------------------------------------------------------------------------------------


def test_expected_outputs_and_other_programs_are_not_in_the_process(sandbox: Sandbox) -> None:
    spy = (
        "import gc, sys\n"
        "def f(x):\n"
        "    frame, found = sys._getframe(), []\n"
        "    while frame:\n"
        "        found.append(repr(frame.f_locals) + repr(frame.f_globals)); frame = frame.f_back\n"
        "    found.append(repr([o for o in gc.get_objects() if isinstance(o, (str, dict, list, tuple))]))\n"
        "    return '-'.join(['neighbour', 'secret']) in ''.join(found)"
    )
    neighbour = Execution(
        "def f(x):\n    return 'neighbour-secret'", function="f", calls=("1",), limits=QUICK
    )
    spying = Execution(spy, function="f", calls=("1",), limits=QUICK)
    results = sandbox.run_many([neighbour, spying, neighbour, spying])
    assert [result.values for result in results[1::2]] == [("false",), ("false",)]


@pytest.mark.parametrize(
    "ending", ["sys.exit(0)", "os._exit(0)", "os.kill(os.getpid(), 9)", "quit()", "raise KeyboardInterrupt"]
)
def test_ending_early_returns_nothing(sandbox: Sandbox, ending: str) -> None:
    assert call(sandbox, f"import os, sys\n{ending}\ndef f(): return 1", "").values in ((), (None,))


@pytest.mark.parametrize("status", [1, 2, 77, 255])
def test_exit_status_never_looks_like_a_failure_of_the_sandbox(sandbox: Sandbox, status: int) -> None:
    result = run(sandbox, f"import os; os._exit({status})")
    assert (result.error, result.exit_status) == (None, status)


def test_patched_builtins_do_not_change_values(sandbox: Sandbox) -> None:
    source = (
        "import builtins, json\n"
        "class Any(int):\n"
        "    def __eq__(self, other): return True\n"
        "    def __hash__(self): return 0\n"
        "builtins.len = lambda _: 0\n"
        "def f(): return Any(3)"
    )
    assert call(sandbox, source, "").values == ("3",)


# --- the sandbox itself -------------------------------------------------------------------------------


def test_death_of_the_worker_is_an_error_and_the_next_call_recovers() -> None:
    with Sandbox() as own:
        assert own.describe().seccomp
        assert own._worker is not None
        os.kill(own._worker._process.pid, signal.SIGKILL)
        (result,) = own.run_many([Execution("print(1)")])
        assert result.error is not None or result.stdout == "1\n"
        assert run(own, "print(1)").stdout == "1\n"


def test_worker_and_jobs_end_with_the_sandbox() -> None:
    own = Sandbox()
    own.describe()
    assert own._worker is not None
    pid = own._worker._process.pid
    own.close()
    assert not Path(f"/proc/{pid}").exists()


def test_refuses_where_nothing_confines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bare(sandbox_module._Worker):
        def __init__(self) -> None:
            super().__init__()
            self.isolation = Isolation("m68k", landlock=0, seccomp=0)

    monkeypatch.setattr(sandbox_module, "_Worker", Bare)
    with Sandbox() as strict, pytest.raises(UserError, match="no seccomp"):
        strict.run_many([Execution("print(1)")])
    with Sandbox(allow_unconfined=True) as lax:
        assert lax.run_many([Execution("print(1)", limits=QUICK)])[0].stdout == "1\n"


def test_says_what_isolates(sandbox: Sandbox) -> None:
    assert "seccomp" in str(sandbox.describe())
    assert Isolation("x86_64", landlock=0, seccomp=1).problems() != []
    assert Isolation("x86_64", landlock=7, seccomp=1).problems() == []


def test_interrupted_batch_leaves_nothing_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(batch: sandbox_module._Batch) -> None:
        raise KeyboardInterrupt

    with Sandbox() as own:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(sandbox_module._Batch, "_wait", interrupted)
            own.run_many([Execution("print('old')", limits=QUICK)])
        assert run(own, "print('new')").stdout == "new\n"
