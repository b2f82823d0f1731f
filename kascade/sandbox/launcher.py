"""Starts one command for `sandbox_commands` in the strongest confinement there is, and sees it to its end.

Three processes: the launcher stays outside, watches the limits, and kills everything at the end; the keeper
is the first process of the command's own namespaces (where the host offers them), so that its end is the end
of all; the command itself, confined, then replaced by the program. Interfaces: namespaces(7),
user_namespaces(7), mount_namespaces(7), mount_setattr(2), pivot_root(2), prctl(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import platform
import resource
import signal
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kascade.sandbox import confinement
from kascade.sandbox.confinement import checked, libc
from kascade.sandbox.denied_syscalls import command_filter
from kascade.sandbox.watcher import watch

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
ALL_NAMESPACES = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000
MNT_DETACH, AT_FDCWD, AT_RECURSIVE = 2, -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_MOUNT_SETATTR = 442  # on every machine
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
INSIDE = 1000  # user and group id within the command's user namespace
FIRST_UID, NUM_UIDS = 20_000, 40_000  # users that own nothing; each command of a privileged host has one
DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True, slots=True)
class Files:
    """Descriptors that become the command's 0, 1 and 2, and 3 (None where it has no third)."""

    stdin: int
    stdout: int
    extra: int | None

    def all(self) -> list[int]:
        return [self.stdin, self.stdout, *([] if self.extra is None else [self.extra])]


def main(fds: tuple[int, int, int, int, int, int | None]) -> None:
    """Run the command of an order and report how it ended; it must end when `control` closes.

    fds: of the order, control, the report, and what becomes the command's 0, 1 and 2, and 3.
    """
    # Out of the way of the command's own numbers.
    order_fd, control, report, stdin, stdout = map(_moved_up, fds[:5])
    files = Files(stdin, stdout, None if fds[5] is None else _moved_up(fds[5]))
    order = json.loads(os.pread(order_fd, os.fstat(order_fd).st_size, 0))
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started, starting = map(_moved_up, os.pipe())
    mapped, mapping = map(_moved_up, os.pipe())
    uid = FIRST_UID + os.getpid() % NUM_UIDS if os.geteuid() == 0 else os.geteuid()
    if uid != os.geteuid():
        for folder in order["own"]:
            _give(folder, uid)
    keeper = os.fork()
    if keeper == 0:
        try:
            for fd in (order_fd, control, report, started, mapping):
                os.close(fd)
            _keep(order, uid, mapped, starting, files)
        except BaseException as error:
            os.write(starting, f"{type(error).__name__}: {error}"[:500].encode())
        os._exit(1)
    for fd in (mapped, starting, *files.all()):
        if fd != files.stdout:  # kept to see how much is written
            os.close(fd)
    said = _map_ids(keeper, uid, mapping, started) if order["namespaces"] else b""
    os.close(mapping)
    end = watch(order, keeper, control, files.stdout)
    trouble = (said + os.read(started, 600)).decode(errors="replace")
    os.write(report, json.dumps({**end, "error": trouble or None}).encode())


def _moved_up(fd: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(fd)
    return moved


def _give(path: str, uid: int) -> None:
    """Make a folder and all in it the property of `uid`; what a link points to stays whose it is."""
    os.chown(path, uid, uid)
    for root, folders, files in os.walk(path):
        for name in (*folders, *files):
            os.chown(f"{root}/{name}", uid, uid, follow_symlinks=False)


def _map_ids(keeper: int, uid: int, mapping: int, started: int) -> bytes:
    """Once the keeper has its user namespace, say whom its users are outside. Returns what else it said."""
    said = os.read(started, 1)
    if said != b"u":
        return said
    group = uid if os.geteuid() == 0 else os.getegid()
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE} {uid} 1"),
        ("gid_map", f"{INSIDE} {group} 1"),
    ):
        Path(f"/proc/{keeper}/{name}").write_text(text)
    os.write(mapping, b"m")
    return b""


def _keep(order: dict[str, Any], uid: int, mapped: int, starting: int, files: Files) -> None:
    """Enter the namespaces, start the command, and end as it ends. Never returns."""
    os.setsid()
    if order["namespaces"]:
        checked(libc.unshare(ctypes.c_int(ALL_NAMESPACES)), "unshare")
        os.write(starting, b"u")
        if os.read(mapped, 1) != b"m":
            os._exit(1)
        order["shown"] = _opened(order)
        os.setresgid(INSIDE, INSIDE, INSIDE)
        os.setresuid(INSIDE, INSIDE, INSIDE)
    checked(libc.prctl(confinement.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "die with the launcher")
    first = os.fork()
    if first:
        _close_and_wait(first)
    if not order["namespaces"]:
        if uid != os.geteuid():
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        checked(libc.prctl(confinement.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "die with the keeper")
        _become(order, starting, files)
    checked(libc.prctl(confinement.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "die with the keeper")
    _new_root(order, order["shown"])
    command = os.fork()
    if command:  # the namespace's first process: its end, when the command ends, takes all others along
        _close_and_wait(command)
    _become(order, starting, files)


def _close_and_wait(child: int) -> None:
    """Collect orphans until the child ends, and end with its status (128 + number for a signal).

    The command can see this process: it holds no descriptor, and its memory and /proc entry are closed to it.
    """
    checked(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "close /proc to the command")
    confinement.close_all_but(set())
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _opened(order: dict[str, Any]) -> dict[str, int]:
    """Descriptors of what the new root shows: opened while we are still who we were, since the command's
    user may not enter every folder on the way there."""
    paths = [*order["readable"], *(f"/dev/{name}" for name in DEVICES), *filter(None, [order["folder"]])]
    return {path: os.open(path, os.O_PATH) for path in paths if not Path(path).is_symlink()}


def _new_root(order: dict[str, Any], shown: dict[str, int]) -> None:
    """A root of our own: what may be read, read-only; the folder; an empty /tmp; a few devices; /proc."""
    root = order["root"]
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    size, inodes = order["limits"]["folder_bytes"], order["limits"]["folder_entries"]
    for path in ("/tmp", "/dev/shm"):  # first, since what may be read can be in /tmp
        Path(root + path).mkdir(parents=True)
        _mount(
            "tmpfs", root + path, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={size},nr_inodes={inodes}"
        )
    for path in order["readable"]:
        _show(path, root + path, shown, read_only=True)
    for name in DEVICES:
        _show(f"/dev/{name}", f"{root}/dev/{name}", shown, read_only=False)
    if order["folder"] is not None:
        _show(order["folder"], root + order["inside"], shown, read_only=False)
    Path(f"{root}/proc").mkdir()
    # A container may not allow a fresh one; then there is none, and few programs miss it.
    libc.mount(b"proc", f"{root}/proc".encode(), b"proc", ctypes.c_ulong(MS_NOSUID | MS_NODEV), None)
    os.chdir(root)
    pivot_root = SYS_PIVOT_ROOT[platform.machine()]
    checked(libc.syscall(ctypes.c_long(pivot_root), b".", b"."), "pivot_root")
    checked(libc.umount2(b".", MNT_DETACH), "leave the old root")
    os.chdir("/")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [text.encode() if text is not None else None for text in (source, target, kind, data)]
    checked(
        libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]),
        f"mount {source} on {target}",
    )


def _show(path: str, target: str, shown: dict[str, int], *, read_only: bool) -> None:
    """Bind a file or folder; a link stays a link."""
    place = Path(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    if path not in shown:
        place.symlink_to(Path(path).readlink())
        return
    if stat.S_ISDIR(os.fstat(shown[path]).st_mode):
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    _mount(f"/proc/self/fd/{shown[path]}", target, None, MS_BIND | MS_REC)
    attributes = MOUNT_ATTR_NOSUID | (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV if read_only else 0)
    packed = struct.pack("<QQQQ", attributes, 0, 0, 0)
    arguments = (ctypes.c_int(AT_FDCWD), target.encode(), ctypes.c_uint(AT_RECURSIVE), packed)
    size = ctypes.c_size_t(len(packed))
    checked(libc.syscall(ctypes.c_long(SYS_MOUNT_SETATTR), *arguments, size), f"protect {path}")


def _become(order: dict[str, Any], starting: int, files: Files) -> None:
    """Confine this process and turn it into the program."""
    isolation = confinement.detect_isolation()
    for number, fd in enumerate((files.stdin, files.stdout, files.stdout)):
        os.dup2(fd, number)
    if files.extra is not None:
        os.dup2(files.extra, 3)
    os.chdir(order["inside"])
    _limit(order)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    checked(libc.prctl(confinement.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    if isolation.landlock:
        # Its own /proc shows its own processes; the host's shows everybody's.
        readable = order["readable"] + (["/proc"] if order["namespaces"] else [])
        confinement.restrict_files(isolation.landlock, readable, order["writable"])
    confinement.drop_capabilities()
    if isolation.seccomp:
        # Without a process namespace others can be seen: signals must be kept in by Landlock or by the user.
        signals = order["namespaces"] or isolation.landlock >= 6 or os.geteuid() >= FIRST_UID
        confinement.install_filter(command_filter(isolation.machine, signals=signals))
    confinement.close_all_but({starting} | ({3} if files.extra is not None else set()))
    os.execvpe(order["argv"][0], order["argv"], order["environment"])  # looked up by who runs it


def _limit(order: dict[str, Any]) -> None:
    limits = order["limits"]
    processes = limits["processes"]
    if not order["namespaces"] and os.geteuid() < FIRST_UID:
        processes += _threads_of(os.geteuid())  # the kernel counts all that this user runs
    for what, most in (
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _threads_of(uid: int) -> int:
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == uid:
                    count += len(list(os.scandir(f"/proc/{entry.name}/task")))
            except OSError:
                continue
    return count
