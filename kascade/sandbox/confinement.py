"""Confines the calling process for good: Landlock for files, seccomp for system calls, rlimits for the rest.

Interfaces: landlock(7), seccomp(2), prctl(2), setrlimit(2). A system call that is not listed here
fails with EPERM; a program has no use for processes, sockets, or other processes' memory.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import platform
import resource
import struct
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kascade.sandbox.allowed_syscalls import MACHINES, Machine
from kascade.sandbox.protocol import Isolation

PR_SET_PDEATHSIG, PR_GET_SECCOMP, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 21, 22, 38
SECCOMP_MODE_FILTER = 2
SIGKILL = 9
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446  # on every machine
CAPABILITY_VERSION_3 = 0x20080522

# Landlock's rights by the first interface version (ABI) that knows them.
FS_RIGHTS = {1: 0x1FFF, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
NET_RIGHTS = {4: 0b11}  # bind, connect
SCOPES = {6: 0b11}  # abstract sockets, signals
EXECUTE, READ_FILE, READ_DIR = 1, 1 << 2, 1 << 3
FILE_RIGHTS = EXECUTE | 1 << 1 | READ_FILE | 1 << 14  # what a rule on a file, not a folder, may grant
ANYTHING = 0xFFFF & ~(1 << 6 | 1 << 11 | 1 << 15)  # but devices: making them, and their ioctl
# In a private folder: read, write, list, remove, make folders and files, truncate; no links or devices.
PRIVATE = 1 << 1 | READ_FILE | READ_DIR | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 14

SHARED_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/null")

libc = ctypes.CDLL(None, use_errno=True)

STACK_BYTES = 64 * 1024**2  # deep recursion passes through C where functions are cached or compared


def checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(number: int, *args: Any) -> int:
    return int(libc.syscall(ctypes.c_long(number), *args))


@cache
def library_paths() -> tuple[str, ...]:
    """The standard library and its compiled modules."""
    standard = sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")
    return tuple(dict.fromkeys([*standard, *(f"{path}/lib-dynload" for path in standard)]))


@dataclass(frozen=True, slots=True)
class Kernel:
    """What this kernel can confine with; `ruleset` is a Landlock ruleset made ready once."""

    isolation: Isolation
    machine: Machine | None
    ruleset: int | None

    @classmethod
    def detect(cls) -> Kernel:
        isolation, machine = detect_isolation(), MACHINES.get(platform.machine())
        ruleset = _ruleset(isolation.landlock, _readable()) if isolation.landlock else None
        if machine is not None:
            for writes in (False, True):  # made once here, so that children inherit it
                machine.program(os.getpid(), opens=bool(isolation.landlock), writes=writes)
        return cls(isolation, machine, ruleset)

    def fds(self) -> tuple[int, ...]:
        return () if self.ruleset is None else (self.ruleset,)

    def confine(self, limits: dict[str, Any], folder: str | None) -> None:
        """Confine this process; it cannot be undone. Raises OSError when the kernel refuses."""
        if folder is not None and self.ruleset is None:
            raise OSError(errno.ENOSYS, "a private folder needs Landlock")
        checked(libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "die with the worker")
        os.chdir(folder or "/")
        _limit(limits)
        checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
        if self.ruleset is not None:
            self._restrict_files(folder)
        drop_capabilities()
        if self.isolation.seccomp and self.machine is not None:
            opens, writes = self.ruleset is not None, folder is not None
            install_filter(self.machine.program(os.getpid(), opens=opens, writes=writes))

    def _restrict_files(self, folder: str | None) -> None:
        assert self.ruleset is not None
        abi = self.isolation.landlock
        private = None if folder is None else _ruleset(abi, [*_readable(), (folder, PRIVATE)])
        ruleset = self.ruleset if private is None else private
        checked(_syscall(LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)), "Landlock")
        for fd in {self.ruleset, ruleset}:
            os.close(fd)


def detect_isolation() -> Isolation:
    """Which of seccomp and Landlock this kernel has."""
    seccomp = platform.machine() in MACHINES and libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0) >= 0
    # Asked for the version (flag 1) without a ruleset; an error means there is no Landlock.
    abi = max(0, _syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)))
    return Isolation(platform.machine(), abi, int(seccomp))


def restrict_files(abi: int, readable: Iterable[str], writable: Iterable[str]) -> None:
    """Confine this process to reading and running `readable`, and to doing as it likes in `writable`."""
    rules = [(path, EXECUTE | READ_FILE | READ_DIR) for path in readable]
    ruleset = _ruleset(abi, [*rules, *((path, ANYTHING) for path in writable)])
    checked(_syscall(LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0)), "Landlock")
    os.close(ruleset)


def close_all_but(kept: set[int]) -> None:
    """Close every descriptor but standard input, output and error and those kept."""
    edges = [2, *sorted(kept), os.sysconf("SC_OPEN_MAX")]
    for low, high in itertools.pairwise(edges):
        os.closerange(low + 1, high)


def _readable() -> list[tuple[str, int]]:
    """Paths that programs may read, with the rights on them: libraries, but no installed packages."""
    rules = [(path, READ_FILE | READ_DIR) for path in SHARED_LIBRARIES]
    for library in map(Path, library_paths()):
        rules.append((str(library), READ_DIR))
        if library.is_dir():
            entries = (entry for entry in library.iterdir() if not entry.name.endswith("-packages"))
            rules += [(str(entry), READ_FILE | READ_DIR) for entry in entries]
    return rules


def _rights(by_version: dict[int, int], abi: int) -> int:
    return sum(bits for version, bits in by_version.items() if version <= abi)


def _ruleset(abi: int, rules: Iterable[tuple[str, int]]) -> int:
    """Descriptor of a ruleset that denies all that this version knows, except `rules`."""
    handled = _rights(FS_RIGHTS, abi)
    attributes = struct.pack("<QQQ", handled, _rights(NET_RIGHTS, abi), _rights(SCOPES, abi))
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = checked(
        _syscall(LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0)),
        "Landlock ruleset",
    )
    for path, rights in rules:
        try:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):  # what we cannot reach needs no rule
            continue
        # Rights on directories are not allowed in a rule on a file.
        allowed = rights & handled & (~0 if Path(path).is_dir() else FILE_RIGHTS)
        try:
            if allowed:
                rule = struct.pack("<Qi", allowed, parent)
                arguments = (ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint32(0))
                checked(_syscall(LANDLOCK_ADD_RULE, *arguments), path)
        finally:
            os.close(parent)
    return ruleset


def _limit(limits: dict[str, Any]) -> None:
    # SIGXCPU at the limit tells a timeout from other ends; a program that ignores it has one second more.
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_seconds"], limits["cpu_seconds"] + 1))
    for what, most in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["output_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    stack = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (stack, stack))


def drop_capabilities() -> None:
    """As root, lose root's powers (raising one's own limits, for one)."""
    header = struct.pack("<Ii", CAPABILITY_VERSION_3, 0)
    checked(libc.capset(header, bytes(24)), "drop capabilities")


def install_filter(program: bytes) -> None:
    text = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    checked(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0), "seccomp")
