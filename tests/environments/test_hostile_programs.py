"""A hundred hostile programs: none escapes, none crashes the sandbox, none holds it beyond its own limits."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from kascade.environments import get_environment
from kascade.sandbox import cleaning
from kascade.sandbox.checkout import Checkout
from kascade.sandbox.commands import Command, CommandLimits, shared_commands
from kascade.sandbox.programs import Execution, Limits, shared_sandbox

SECRET = "KASCADE-HOSTILE-SECRET"
LIMITS = Limits(cpu_seconds=1, wall_seconds=2.0, memory_bytes=256 * 2**20, output_bytes=2**16)

# Each prints ESCAPED when it gets what it should not.
READS = [
    *(
        f"print('ESCAPED' if open({path!r}).read() else '')"
        for path in (
            "/etc/passwd",
            "/etc/shadow",
            "/etc/hostname",
            "/proc/1/environ",
            "/proc/1/cmdline",
            "/proc/self/maps",
            "/proc/self/environ",
            "/home/.bashrc",
            "/sys/kernel/uevent_seqnum",
            "/proc/kallsyms",
            "/dev/mem",
        )
    ),
    *(
        f"import os; os.listdir({path!r}); print('ESCAPED')"
        for path in ("/", "/root", "/home", "/proc", "/tmp")
    ),
    "import os; print('ESCAPED' if os.environ.get('HOSTILE') else '')",
    "import os; os.chdir('/root'); print('ESCAPED')",
    "import os; os.listdir('/proc/self/fd'); print('ESCAPED')",
    "import kascade; print('ESCAPED')",
    "import numpy; print('ESCAPED')",
    "import sys; print('ESCAPED' if any('kascade' in name for name in sys.modules) else '')",
]
WRITES = [
    *(
        f"open({path!r}, 'w').write('x'); print('ESCAPED')"
        for path in (
            "/tmp/hostile",
            "/etc/hostile",
            "/home/hostile",
            "/dev/shm/hostile",
            "hostile",
            "/proc/self/comm",
            "/proc/self/oom_score_adj",
            "/var/tmp/hostile",
        )
    ),
    "import os; os.mkdir('/tmp/hostile'); print('ESCAPED')",
    "import os; os.symlink('/etc/passwd', '/tmp/hostile'); print('ESCAPED')",
    "import os; os.unlink('/etc/hostname'); print('ESCAPED')",
    "import os; os.chmod('/tmp', 0); print('ESCAPED')",
    "import os; os.mkfifo('/tmp/hostile'); print('ESCAPED')",
    "import tempfile; tempfile.mkdtemp(); print('ESCAPED')",
]
REACHES = [
    "import socket; socket.socket(); print('ESCAPED')",
    "import socket; socket.socketpair(); print('ESCAPED')",
    "import socket; socket.create_connection(('127.0.0.1', 22), 1); print('ESCAPED')",
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1', timeout=1); print('ESCAPED')",
    "import os; os.fork(); print('ESCAPED')",
    "import os; os.execv('/bin/sh', ['sh']); print('ESCAPED')",
    "import os; print('ESCAPED' if os.system('true') == 0 else '')",
    "import subprocess; subprocess.run(['true']); print('ESCAPED')",
    "import multiprocessing as m; p = m.Process(target=print); p.start(); p.join(); print('ESCAPED')",
    "import os; os.kill(os.getppid(), 0); print('ESCAPED')",
    "import os; os.kill(-1, 9); print('ESCAPED')",
    "import os; os.kill(1, 9); print('ESCAPED')",
    "import os; os.setuid(0); os.setgid(0); open('/etc/shadow').read(); print('ESCAPED')",
    "import os; os.nice(-20); print('ESCAPED')",
    "import resource as r; r.setrlimit(r.RLIMIT_CPU, (99, 99)); print('ESCAPED')",
    "import resource as r; r.setrlimit(r.RLIMIT_AS, (2**40, 2**40)); print('ESCAPED')",
    "import ctypes; ctypes.CDLL(None).ptrace(16, 1, 0, 0); open('/etc/passwd'); print('ESCAPED')",
    "import ctypes; print('ESCAPED' if ctypes.CDLL(None).mount(b'a', b'/tmp', b'tmpfs', 0, 0) == 0 else '')",
    "import ctypes; print('ESCAPED' if ctypes.CDLL(None).unshare(0x10000000) == 0 else '')",
    "import ctypes; print('ESCAPED' if ctypes.CDLL(None).chroot(b'/tmp') == 0 else '')",
    "import os; os.memfd_create('x'); print('')",
    "import os; os.setsid(); print('')",
    "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'V1\\n' * 9)\n    except OSError: pass",
    "import os\nfor fd in range(0, 64):\n    try: os.close(fd)\n    except OSError: pass",
    "import os; os.dup2(1, 3); os.write(3, b'x')",
]
EXHAUSTS = [
    "while True: pass",
    "def f(): return f()\nf()",
    "import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    "import sys; sys.setrecursionlimit(10**9)\nf = lru_cache(lambda n: f(n + 1))\nf(0)",
    "x = 'a' * 2**40",
    "x = []\nwhile True: x.append(bytes(2**20))",
    "x = {i: [i] * 100 for i in range(10**9)}",
    "print('a' * 2**30)",
    "import sys\nwhile True: sys.stdout.write('a' * 9999)",
    "import sys\nwhile True: sys.stderr.write('a' * 9999)",
    "import time; time.sleep(99)",
    "import signal as s\nfor n in {1, 2, 15, 24, 25}: s.signal(n, s.SIG_IGN)\nwhile True: pass",
    "import signal; signal.pause()",
    "from threading import Thread\ndef f():\n    while 1: pass\nfor _ in range(50): Thread(target=f).start()",
    "import threading\nwhile True: threading.Thread(target=__import__('time').sleep, args=(99,)).start()",
    "import threading; threading.Lock().acquire(); l = threading.Lock(); l.acquire(); l.acquire()",
    "import atexit, time; atexit.register(time.sleep, 99)",
    "import threading, time; threading.Thread(target=time.sleep, args=(99,)).start()",
    "class A:\n    def __del__(self):\n        while True: pass\na = A()",
    "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "10 ** 10 ** 10",
    "9 ** 9 ** 9 % 7",
    "int('9' * 10**7)",
    "str(7 ** 10**7)",
    "import itertools; list(itertools.product(range(99), repeat=9))",
    "import math; math.factorial(10**7)",
    "eval('(' * 10**5)",
    "eval('-' * 10**6 + '1')",
    "compile('x=' * 10**6 + '1', '', 'exec')",
    "import json; json.loads('[' * 10**6)",
    "import pickle; pickle.loads(b'cos\\n_exit\\n(I0\\ntR.')",
    "import gc, sys; sys.settrace(lambda *a: None); gc.disable(); x = [x for x in range(10**8)]",
]
CRASHES = [
    "import os; os._exit(0)",
    "import os; os._exit(77)",
    "import os; os.abort()",
    "import os; os.kill(os.getpid(), 9)",
    "import os; os.kill(os.getpid(), 11)",
    "import ctypes; ctypes.string_at(0)",
    "import sys; sys.exit(255)",
    "raise SystemExit(object())",
    "raise BaseException",
    "raise KeyboardInterrupt",
    "class E(Exception):\n    def __str__(self): raise ValueError\nraise E",
    "class E(Exception):\n    def __str__(self): return 'x' * 10**9\nraise E",
    "import sys; sys.stdout = None; print(1)",
    "import sys; sys.stdout.close(); sys.__stdout__ = None",
    "import builtins; builtins.print = None; builtins.exec = None; builtins.__import__ = None",
    "import sys; sys.modules.clear(); sys.path.clear()",
    "import os; os.write = None; os._exit = None",
    "import json; json.dumps = None",
    "globals().clear(); __builtins__.clear()",
    "import sys; sys.excepthook = sys.unraisablehook = None; raise ValueError('\\ud800')",
    "print('\\ud800')",
    "\0",
    "# -*- coding: utf-7 -*-\nprint(1)",
    "import threading; threading._shutdown = None; threading.enumerate = None",
]
ALL = READS + WRITES + REACHES + EXHAUSTS + CRASHES


def test_no_program_escapes_crashes_the_sandbox_or_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTILE", SECRET)
    Path("/tmp/hostile").unlink(missing_ok=True)
    assert len(ALL) >= 100
    worst: list[tuple[float, str]] = []
    for program in ALL:
        start = time.monotonic()
        (result,) = shared_sandbox().run_many([Execution(program, stdin="1\n", limits=LIMITS)])
        worst.append((time.monotonic() - start, program))
        assert result.error is None, (program, result.error)
        assert "ESCAPED" not in result.stdout, program
        assert SECRET not in result.stdout, program
    assert max(worst)[0] < LIMITS.wall_seconds + 1, max(worst)
    assert not Path("/tmp/hostile").exists()
    (after,) = shared_sandbox().run_many([Execution("print(1)", limits=LIMITS)])
    assert (after.stdout, after.finished) == ("1\n", True)


COMMANDS = [
    "while :; do mkdir d && cd d; done",
    "i=0; while :; do : > f$i; i=$((i+1)); done",
    "i=0; while [ $i -lt 300 ]; do mkdir d && cd d && i=$((i+1)); done; chmod 0 . ; echo done",
    "mkdir a; touch a/b; chmod 000 a",
    "ln -s / root; ln -s loop loop; ln -s .. up; cat root/etc/shadow && echo ESCAPED",
    "mkfifo p; cat p",
    "head -c 999999999 /dev/zero > big; ls -s big",
    "yes",
    "sleep 99 & sleep 99 & wait",
    "(setsid sleep 99 &) ; echo left",
    "nohup sh -c 'while :; do :; done' & echo left",
    ":(){ :|:& };:",
    "cat /proc/1/environ | grep KASCADE && echo ESCAPED",
    "echo x > /etc/hostile && echo ESCAPED",
    "mount -t tmpfs a /mnt && echo ESCAPED",
    "kill -9 -1; echo alive",
]


def graves() -> set[str]:
    """Folders that this process has yet to remove."""
    ours = f"{cleaning.GRAVEYARD}{os.getpid()}-"
    return {path.name for path in Path(tempfile.gettempdir()).iterdir() if path.name.startswith(ours)}


def test_no_command_escapes_stays_or_holds_the_sandbox() -> None:
    limits = CommandLimits(wall_seconds=2.0, cpu_seconds=1, memory_bytes=256 * 2**20, folder_bytes=2**22)
    before = graves()
    for command in COMMANDS:
        checkout = Checkout({"a.py": "x = 1\n"})
        ended = shared_commands().run(Command(("sh", "-c", command), folder=checkout.folder, limits=limits))
        assert "ESCAPED" not in ended.output, command
        assert ended.error is None, (command, ended.error)
        start = time.monotonic()
        checkout.texts(".py")
        checkout.close()
        assert time.monotonic() - start < 2, command
        assert not checkout.folder.exists(), command
    assert cleaning.settle(60)
    assert graves() <= before


def test_what_lies_deeper_than_any_path_is_removed_without_a_word(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    nest = (
        "import os\nfor n in range(1500):\n    os.mkdir('d'); os.chdir('d')\n    if n % 100 == 0:\n"
        "        open('f', 'w').close(); os.symlink('/', 'l'); os.mkdir('e'); os.chmod('e', 0)\n"
    )
    deep.mkdir()
    subprocess.run([sys.executable, "-c", nest], cwd=deep, check=True)
    assert cleaning.remove(str(deep), 30.0)
    assert not deep.exists()
    assert cleaning.remove(str(tmp_path / "nothing"), 1.0)
    cleaning.discard(tmp_path / "nothing")
    cleaning.discard("nul\0")
    assert cleaning.settle(5)


def test_an_answer_that_nests_folders_is_a_wrong_answer() -> None:
    environment = get_environment("competitive_coding_challenges")
    tests = {"inputs": ["3"], "outputs": ["3"], "time_limit_secs": 1}
    task = environment.from_row({"responses_create_params": {"input": "q"}, "unit_tests": tests})
    body = 'for(int i=0;i<3000;i++){mkdir("d",0755);chdir("d");}'
    source = f"#include <sys/stat.h>\n#include <unistd.h>\nint main(){{{body}}}"
    right = "#include <iostream>\nint main(){int n;std::cin>>n;std::cout<<n;}"
    grades = environment.grade(task, [f"```cpp\n{source}\n```", f"```cpp\n{right}\n```"])
    if grades[1].error is not None:
        pytest.skip(f"NOT RUN: {grades[1].error}")
    assert [(grade.reward, grade.error) for grade in grades] == [(0.0, None), (1.0, None)]
