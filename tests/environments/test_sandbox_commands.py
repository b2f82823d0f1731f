"""Hostile commands lose every time, in namespaces and without them, and harm nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kascade.environments.isolation import isolation_of
from kascade.errors import UserError
from kascade.sandbox import commands as sandbox_commands
from kascade.sandbox.checkout import Checkout, CheckoutError
from kascade.sandbox.commands import MIB, Command, CommandLimits, CommandSandbox, Ended
from kascade.sandbox.protocol import Isolation

QUICK = CommandLimits(
    wall_seconds=90.0,  # ample: the machine that runs the tests may be busy
    cpu_seconds=5,
    memory_bytes=512 * MIB,
    processes=24,
    file_bytes=MIB,
    folder_bytes=8 * MIB,
    output_bytes=64 * 1024,
)


@pytest.fixture(scope="module", params=["namespaces", "landlock"])
def sandbox(request: pytest.FixtureRequest) -> CommandSandbox:
    wanted = request.param == "namespaces"
    made = CommandSandbox(namespaces=wanted)
    try:
        isolation = made.isolation
    except UserError as error:
        pytest.skip(f"NOT RUN: {error}")
    if not wanted and not isolation.landlock:
        pytest.skip("NOT RUN: this kernel has no Landlock")
    return made


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    made = Checkout({"pkg/a.py": "A = 1\n"})
    yield made
    made.close()


def sh(
    sandbox: CommandSandbox, script: str, checkout: Checkout | None = None, limits: CommandLimits = QUICK
) -> Ended:
    folder = None if checkout is None else checkout.folder
    ended = sandbox.run(Command(("sh", "-c", script), folder=folder, limits=limits))
    assert ended.error is None, ended.error
    return ended


def python(sandbox: CommandSandbox, code: str, limits: CommandLimits = QUICK) -> Ended:
    ended = sandbox.run(Command(("python3", "-c", code), limits=limits))
    assert ended.error is None, ended.error
    return ended


def running(marker: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if marker in " ".join(process.info["cmdline"] or ()) and process.pid != os.getpid():
            found.append(process.pid)
    return found


def test_sound_commands_work_in_their_folder(sandbox: CommandSandbox, checkout: Checkout) -> None:
    ended = sh(sandbox, "cat pkg/a.py; echo B = 2 >> pkg/a.py; echo no >&2; exit 3", checkout)
    assert (ended.output, ended.status, ended.stopped) == ("A = 1\nno\n", 3, None)
    assert checkout.read("pkg/a.py") == "A = 1\nB = 2\n"
    checkout.write("pkg/b.py", "C = 3\n")
    assert sh(sandbox, "rm pkg/a.py && cat pkg/b.py && echo x > pkg/b.py", checkout).output == "C = 3\n"
    assert list(checkout.paths()) == ["pkg/b.py"]
    assert python(sandbox, "import json, sqlite3, numpy; print(6 * 7)").output == "42\n"


def test_many_at_once_keep_their_order(sandbox: CommandSandbox) -> None:
    commands = [Command(("sh", "-c", f"echo {i}"), limits=QUICK) for i in range(4)]
    assert [ended.output for ended in sandbox.run_many(commands)] == [f"{i}\n" for i in range(4)]
    stdin = Command(("cat",), stdin="hello", limits=QUICK)
    assert sandbox.run(stdin).output == "hello"
    assert sandbox.run(Command(("no-such-program",), limits=QUICK)).error is not None


def test_sleepers_daemons_and_fork_bombs_end_with_the_command(sandbox: CommandSandbox) -> None:
    brief = CommandLimits(wall_seconds=1.5, cpu_seconds=5, processes=24)
    started = time.monotonic()
    assert sh(sandbox, "sleep 8641", limits=brief).stopped == "time"
    assert (
        sh(sandbox, "(setsid sleep 8642 &) ; setsid nohup sleep 8642 & exit 0", limits=QUICK).stopped is None
    )
    # The shell becomes its last command: it needs no further process, whatever the bomb has left it.
    bomb = "f() { f | f & }; sleep 8643 & f; exec sleep 8643"
    assert sh(sandbox, bomb, limits=brief).stopped == "time"
    deaf = "import os, signal, time\nfor n in {*range(1, 32)} - {9, 19}: signal.signal(n, signal.SIG_IGN)\n"
    assert python(sandbox, deaf + "os.fork(); time.sleep(8644)", limits=brief).stopped == "time"
    assert time.monotonic() - started < 300
    assert not [pid for marker in ("8641", "8642", "8643", "8644") for pid in running(marker)]


def test_memory_output_and_size_have_ends(sandbox: CommandSandbox, checkout: Checkout) -> None:
    one = python(sandbox, "x = []\nwhile True: x.append(bytearray(1 << 24))")
    assert "MemoryError" in one.output or one.stopped == "memory"
    hoard = "import os, time\nfor _ in range(3): os.fork()\nx = bytearray(b'x' * (150 << 20)); time.sleep(60)"
    assert python(sandbox, hoard).stopped == "memory"
    endless = sh(sandbox, "yes")  # whichever limit is met first
    assert endless.stopped == "output" or endless.status == 128 + signal.SIGXFSZ
    assert sh(sandbox, "head -c 4000000 /dev/zero > big", checkout).status != 0
    assert (checkout.folder / "big").stat().st_size <= MIB
    many = "i=0; while true; do head -c 900000 /dev/zero > f$i; i=$((i+1)); done"
    assert sh(sandbox, many, checkout).stopped == "size"


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', 80), 2)",
        "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import socket; print(socket.gethostbyname('example.com'))",
    ],
)
def test_no_network(sandbox: CommandSandbox, code: str) -> None:
    assert python(sandbox, code).status != 0


def test_secrets_and_other_runs_are_out_of_reach(
    sandbox: CommandSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "hunter2")
    (tmp_path / "token").write_text("hunter2")
    other = Checkout({"secret.py": "hunter2"})
    for path in (tmp_path / "token", other.folder / "secret.py", "/etc/shadow", "/etc/passwd"):
        ended = sh(sandbox, f"cat {path}; cp {path} . ; ls -la {Path(path).parent}/")
        assert "hunter2" not in ended.output and "root:" not in ended.output
    tricks = (
        f"env; cat /proc/{os.getpid()}/environ /proc/1/environ /proc/self/../1/environ | tr '\\0' '\\n'; "
        "cd /proc/1/root && cat etc/passwd; cat /proc/1/cwd/etc/passwd; ls -l /proc/1/fd; "
        f"ln -s {tmp_path} out; cat out/token; ls /root /home"
    )
    found = sh(sandbox, tricks).output
    assert "hunter2" not in found and "root:x" not in found
    other.close()


def test_nothing_outside_can_be_written(sandbox: CommandSandbox, tmp_path: Path, checkout: Checkout) -> None:
    target = tmp_path / "file"
    target.write_text("before")
    target.chmod(0o666)
    tmp_path.chmod(0o777)
    sh(
        sandbox,
        f"echo after > {target}; rm -f {target}; ln -f {target} x; touch /usr/x {tmp_path}/y",
        checkout,
    )
    sh(
        sandbox,
        f"mv {target} .; truncate -s 0 {target}; chmod 0 {target}; ln -s {target} z; echo a >> z",
        checkout,
    )
    assert target.read_text() == "before" and [*tmp_path.iterdir()] == [target]
    assert not Path("/usr/x").exists()


def test_what_may_be_read_can_lie_in_tmp(tmp_path: Path) -> None:
    """As it does where the project was installed there: /tmp is the command's own all the same."""
    made = CommandSandbox(namespaces=True)
    try:
        assert made.isolation.namespaces
    except UserError as error:
        pytest.skip(f"NOT RUN: {error}")
    made = CommandSandbox(namespaces=True)
    made.__dict__["readable"] = [*made.readable, str(tmp_path)]  # before its first use
    (tmp_path / "library").write_text("given")
    tmp_path.chmod(0o777)
    found = sh(made, f"cat {tmp_path}/library; echo x > /tmp/mine; cat /tmp/mine; rm -f {tmp_path}/library")
    assert found.output.startswith("givenx\n")
    assert (tmp_path / "library").exists()


@pytest.mark.parametrize("victim", ["-1", "1", "PARENT", "$PPID"])
def test_nobody_to_kill(sandbox: CommandSandbox, victim: str) -> None:
    victim = victim.replace("PARENT", str(os.getpid()))
    bystander = os.fork()
    if bystander == 0:
        time.sleep(30)
        os._exit(0)
    try:
        sh(sandbox, f"kill -9 {victim}; kill -9 {bystander}; kill -STOP {victim}; renice 19 {bystander}")
        assert os.waitpid(bystander, os.WNOHANG) == (0, 0)
        assert os.getpriority(os.PRIO_PROCESS, bystander) == os.getpriority(os.PRIO_PROCESS, 0)
    finally:
        os.kill(bystander, signal.SIGKILL)
        os.waitpid(bystander, 0)
    assert sh(sandbox, "echo on").output == "on\n"


def test_no_way_to_more_powers(sandbox: CommandSandbox) -> None:
    for script in (
        "unshare -Ur id -u", "unshare -n true", "mount -t tmpfs x /tmp", "chroot / true", "mknod x b 8 0",
        "su -c id", "ulimit -v unlimited", "ulimit -t unlimited", "echo x > /proc/sys/kernel/hostname",
    ):  # fmt: skip
        assert sh(sandbox, script).status != 0, script
    calls = (
        "import ctypes, platform\nl = ctypes.CDLL(None, use_errno=True)\n"
        "for n in (101, 310, 311, 165, 321, 250, 246, 434, 425, 272, 308, 41):\n"
        "    r = l.syscall(n, 0, 0, 0, 0)\n    print(r, ctypes.get_errno())"
    )
    if os.uname().machine == "x86_64":
        assert set(python(sandbox, calls).output.splitlines()) == {"-1 1"}


def test_links_pipes_and_strange_names_in_a_checkout_are_not_followed(
    sandbox: CommandSandbox, checkout: Checkout, tmp_path: Path
) -> None:
    (tmp_path / "token.py").write_text("hunter2")
    script = (
        f"ln -s {tmp_path}/token.py leak.py; ln -s {tmp_path} folder; mkfifo pipe.py; mkdir dir.py; "
        "printf '\\377' > latin.py; touch \"$(printf 'a\\nb.py')\"; ln -sf /etc/passwd pkg/a.py; chmod 0 pkg"
    )
    sh(sandbox, script, checkout)
    texts = checkout.texts(".py")
    assert "hunter2" not in "".join(texts.values()) and "leak.py" not in texts
    for path in (
        "leak.py",
        "folder/token.py",
        "pipe.py",
        "dir.py",
        "latin.py",
        "../x",
        "/etc/passwd",
        "pkg/a.py",
    ):
        with pytest.raises(CheckoutError):
            checkout.read(path)
    for path in ("folder/new.py", "leak.py", "../x.py", "/tmp/x.py", "", "a\0b"):
        with pytest.raises(CheckoutError):
            checkout.write(path, "x")
    assert (tmp_path / "token.py").read_text() == "hunter2" and len([*tmp_path.iterdir()]) == 1


def test_death_of_the_launcher_is_an_error_and_leaves_nothing(sandbox: CommandSandbox) -> None:
    process = sandbox.open(Command(("sleep", "8645"), limits=QUICK))
    time.sleep(0.5)
    launcher = process._flight._process
    launcher.kill()
    launcher.wait()
    ended = process.close()
    assert ended.error is not None
    deadline = time.monotonic() + 30
    while running("8645") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running("8645")


def test_refuses_where_nothing_confines_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_commands, "detect_isolation", lambda: Isolation("x86_64", 0, 1))
    with pytest.raises(UserError, match="no namespaces and no Landlock"):
        CommandSandbox(namespaces=False).run(Command(("true",)))
    assert CommandSandbox(namespaces=False, allow_unconfined=True).isolation.landlock == 0
    assert "rlimits" in str(Isolation("x86_64", 7, 1, 1)) and "namespaces" in str(
        Isolation("x86_64", 7, 1, 1)
    )


def test_preflight_is_told_what_confines_what(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isolation_of(["mcqa", "workplace_dialogues"]) == ({}, [])
    found, faults = isolation_of(["swe_agents", "mcqa"])
    assert not faults and set(found) == {"commands", "programs"}
    assert all("seccomp" in how for how in found.values())
    bare = CommandSandbox(namespaces=False)
    monkeypatch.setattr(sandbox_commands, "detect_isolation", lambda: Isolation("m68k", 0, 0))
    monkeypatch.setattr(sandbox_commands, "_shared", [bare])
    _, faults = isolation_of(["ns_tools"])
    assert [fault.where for fault in faults] == ["sandbox"]
    monkeypatch.setattr(sandbox_commands, "_shared", [])
    monkeypatch.setenv("KASCADE_SANDBOX_UNCONFINED", "1")
    assert sandbox_commands.shared_commands().allow_unconfined
