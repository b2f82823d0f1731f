"""Runs untrusted commands (shells, compilers, tests, sessions) in a folder of their own.

Where the host lets users make namespaces, a command sees a root of its own with libraries and tools
read-only, its folder, an empty /tmp, no network and no other process (what bubblewrap does, done by
`sandbox_launcher`). Landlock, seccomp and rlimits come on top, and are what remains in a container without
namespaces. A watcher outside ends whatever passes a limit, with all that it started.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from kascade.errors import Fault, UserError
from kascade.sandbox.cleaning import discard
from kascade.sandbox.confinement import detect_isolation
from kascade.sandbox.protocol import UNCONFINED, Isolation, may_run_unconfined, memory_file, read_memory

MIB = 1024**2
INSIDE = "/checkout"  # where a command sees its folder, in namespaces; else it sees the real one
BOOTSTRAP = """
import sys
sys.path.insert(0, {root!r})
from kascade.sandbox.launcher import main
main({fds})
"""
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/alternatives")


@dataclass(frozen=True, slots=True)
class CommandLimits:
    """What one command with all that it starts may use.

    wall_seconds: of all; cpu_seconds: of each process. memory_bytes: address space of each process, resident
    memory of all. file_bytes: of each file; folder_bytes: of its folder, and of /tmp; folder_entries: files
    and folders in each of these. output_bytes: of what it prints.
    """

    wall_seconds: float = 60.0
    cpu_seconds: int = 60
    memory_bytes: int = 2048 * MIB
    processes: int = 64
    open_files: int = 256
    file_bytes: int = 64 * MIB
    folder_bytes: int = 256 * MIB
    folder_entries: int = 20_000
    output_bytes: int = MIB


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: argv[0] is looked up on the sandbox's PATH. folder: its working folder, which it may
    change; None for one of its own that is wiped. environment: beside the sandbox's own."""

    argv: tuple[str, ...]
    folder: Path | None = None
    stdin: str = ""
    limits: CommandLimits = CommandLimits()
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. output: standard output and error, as they came.

    status: exit status, 128 + number for a signal. stopped: which limit ended it (time, memory, output,
    size), None when it ended itself. error: the sandbox failed; all else is then meaningless.
    """

    output: str = ""
    status: int = 0
    stopped: str | None = None
    cpu_seconds: float = 0.0
    error: str | None = None


class Process:
    """A command under way that is talked to through its descriptor 3. Close it."""

    def __init__(self, sandbox: CommandSandbox, command: Command) -> None:
        self._limits = command.limits
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            self._flight = _Flight(sandbox, command, theirs.fileno())

    def output(self) -> str:
        """What it has printed so far, within its limit."""
        return read_memory(self._flight.stdout, self._limits.output_bytes)

    def close(self) -> Ended:
        """End it, if it has not ended, with all that it started."""
        self.channel.close()
        return self._flight.land(stop=True)


class CommandSandbox:
    """Runs commands, `parallel` at a time.

    namespaces: whether to use them; None where the host allows. packages: whether commands may import this
    interpreter's installed packages. Raises UserError on first use where nothing confines commands, unless
    `allow_unconfined`.
    """

    def __init__(
        self,
        *,
        parallel: int = 2,
        namespaces: bool | None = None,
        packages: bool = True,
        allow_unconfined: bool = False,
    ) -> None:
        self.parallel = parallel
        self.allow_unconfined = allow_unconfined
        self._wanted = namespaces
        self.packages = packages

    @cached_property
    def isolation(self) -> Isolation:
        """What confines commands; found out by trying. Raises UserError where that is not enough."""
        found = detect_isolation()
        trial = Command(("true",), limits=CommandLimits(wall_seconds=30.0))
        if self._wanted is not False:
            spaced = replace(found, namespaces=1)
            tried = _Flight(self, trial, None, spaced).land()
            if tried.error is None and tried.status == 0:
                return self._accepted(spaced)
            if self._wanted:
                raise UserError(Fault("sandbox", f"the host refuses namespaces: {tried.error}"))
        return self._accepted(found)

    def _accepted(self, isolation: Isolation) -> Isolation:
        confined = isolation.seccomp and (isolation.landlock or isolation.namespaces)
        if not confined and not self.allow_unconfined:
            missing = "seccomp" if not isolation.seccomp else "namespaces and no Landlock"
            what = f"this host has no {missing}: commands could do as they like"
            remedy = f"use a kernel with seccomp and Landlock or user namespaces, or set {UNCONFINED}=1"
            raise UserError(Fault("sandbox", what, remedy=remedy))
        return isolation

    def run(self, command: Command) -> Ended:
        return _Flight(self, command, None).land()

    def run_many(self, commands: Sequence[Command]) -> list[Ended]:
        """Results of all commands, in order."""
        if len(commands) < 2:
            return [self.run(command) for command in commands]
        _ = self.isolation
        with ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(self.run, commands))

    def open(self, command: Command) -> Process:
        return Process(self, command)

    @cached_property
    def readable(self) -> list[str]:
        """What every command may read and run."""
        own = [sys.base_prefix, *([sysconfig.get_path("purelib")] if self.packages else [])]
        beyond = [path for path in own if not path.startswith("/usr/") and Path(path).is_dir()]
        return [path for path in (*SYSTEM, *beyond) if Path(path).exists()]

    @cached_property
    def environment(self) -> dict[str, str]:
        """Fixed, so that the same command prints the same; holds nothing of ours."""
        packages = {"PYTHONPATH": sysconfig.get_path("purelib")} if self.packages else {}
        return {
            "PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **packages,
        }


class _Flight:
    """One command from start to end: the launcher's process, its descriptors, its folders."""

    def __init__(
        self, sandbox: CommandSandbox, command: Command, extra: int | None, isolation: Isolation | None = None
    ) -> None:
        namespaces = bool((isolation or sandbox.isolation).namespaces)
        self._command = command
        self._scratch = tempfile.mkdtemp(prefix="kascade-sandbox-")
        Path(self._scratch).chmod(0o711)  # the command's user finds its own folder in it, and no other
        order = _order(sandbox, command, namespaces, self._scratch)
        memory = [memory_file(text) for text in (json.dumps(order), "", command.stdin, "")]
        given, self._report, given_stdin, self.stdout = memory
        self._control, theirs = os.pipe2(os.O_CLOEXEC)
        self._control, theirs = theirs, self._control  # we hold the end whose closing the other sees
        fds = (given, theirs, self._report, given_stdin, self.stdout, extra)
        code = BOOTSTRAP.format(root=str(Path(__file__).parents[2]), fds=repr(fds))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-S", "-B", "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"LC_ALL": "C.UTF-8"},
                cwd="/",
                pass_fds=[fd for fd in fds if fd is not None],
                start_new_session=True,
            )
        finally:
            for fd in (given, given_stdin, theirs):
                os.close(fd)
        self._ended: Ended | None = None

    def land(self, *, stop: bool = False) -> Ended:
        """Wait for the end, or bring it about. Idempotent."""
        if self._ended is not None:
            return self._ended
        if stop:
            os.close(self._control)
        _, complaint = self._process.communicate()
        if not stop:
            os.close(self._control)
        report = read_memory(self._report, MIB)
        if report:
            end = json.loads(report)
            output = read_memory(self.stdout, self._command.limits.output_bytes)
            self._ended = Ended(output, **end)
        else:
            self._ended = Ended(error=f"the launcher failed: {complaint.decode(errors='replace')[-500:]}")
        os.close(self._report)
        os.close(self.stdout)
        discard(self._scratch)
        return self._ended


def _order(sandbox: CommandSandbox, command: Command, namespaces: bool, scratch: str) -> dict[str, object]:
    folder = None if command.folder is None else str(command.folder)
    tmp = f"{scratch}/tmp"
    Path(tmp).mkdir()
    root = f"{scratch}/root"
    Path(root).mkdir()
    home = "/tmp" if namespaces else tmp
    inside = home if folder is None else INSIDE if namespaces else folder
    writable = ["/tmp", "/dev/shm", INSIDE] if namespaces else [tmp, *([folder] if folder else [])]
    environment = {**sandbox.environment, "HOME": home, "TMPDIR": home, **command.environment}
    return {
        "argv": command.argv,
        "environment": environment,
        "folder": folder,
        "inside": inside,
        "limits": asdict(command.limits),
        "namespaces": namespaces,
        "own": ([] if namespaces else [tmp]) + ([folder] if folder else []),
        "readable": sandbox.readable,
        "root": root,
        "writable": [*writable, "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"],
    }


_shared: list[CommandSandbox] = []


def shared_commands() -> CommandSandbox:
    """The command sandbox of this process, made on first use."""
    if not _shared:
        configure_commands(allow_unconfined=may_run_unconfined())
    return _shared[0]


def configure_commands(*, parallel: int = 2, allow_unconfined: bool = False) -> CommandSandbox:
    """Replace the command sandbox of this process."""
    _shared[:] = [CommandSandbox(parallel=parallel, allow_unconfined=allow_unconfined)]
    return _shared[0]
