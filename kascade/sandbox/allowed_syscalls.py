"""Which system calls a confined program may make, as a seccomp filter (classic BPF).

Numbers: x86_64 after arch/x86/entry/syscalls/syscall_64.tbl, aarch64 after asm-generic/unistd.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

LOAD, JUMP, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06  # BPF codes
KILL, ALLOW = 0x80000000, 0x7FFF0000
DENY, UNKNOWN = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
X32 = 0x40000000  # x86's second system call table
CLONE_THREAD = 0x10000
CLONE3 = 435  # on every machine
NUMBER, ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
TERMINAL_QUERIES = (0x5401, 0x5450, 0x5451, 0x541B)  # TCGETS, FIONCLEX, FIOCLEX, FIONREAD
# F_DUPFD to F_SETFL and F_DUPFD_CLOEXEC; not F_SETOWN and F_SETSIG, which aim signals at others.
DESCRIPTOR_COMMANDS = (0, 1, 2, 3, 4, 1030)

# Name: (x86_64, aarch64); None where a machine has no such call.
BASIC: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "poll": (7, None),
    "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139),
    "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66),
    "pipe": (22, None), "select": (23, None), "sched_yield": (24, 124), "mremap": (25, 216),
    "madvise": (28, 233), "dup": (32, 23), "dup2": (33, None), "nanosleep": (35, 101),
    "getpid": (39, 172), "exit": (60, 93), "uname": (63, 160), "ftruncate": (77, 46),
    "getcwd": (79, 17), "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165),
    "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176),
    "geteuid": (107, 175), "getegid": (108, 177), "getppid": (110, 173), "sigaltstack": (131, 132),
    "gettid": (186, 178), "time": (201, None), "futex": (202, 98), "sched_getaffinity": (204, 123),
    "set_tid_address": (218, 96), "restart_syscall": (219, 128), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94),
    "pselect6": (270, 72), "ppoll": (271, 73), "set_robust_list": (273, 99), "dup3": (292, 24),
    "pipe2": (293, 59), "getrandom": (318, 278), "membarrier": (324, 283), "rseq": (334, 293),
}  # fmt: skip
OPENING: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "stat": (4, None), "lstat": (6, None), "access": (21, None), "readlink": (89, None),
    "getdents64": (217, 61), "openat": (257, 56), "newfstatat": (262, 79), "readlinkat": (267, 78),
    "faccessat": (269, 48), "statx": (332, 291), "faccessat2": (439, 439),
}  # fmt: skip
WRITING: dict[str, tuple[int | None, int | None]] = {
    "fsync": (74, 82), "fdatasync": (75, 83), "truncate": (76, 45), "chdir": (80, 49),
    "rename": (82, None), "mkdir": (83, None), "rmdir": (84, None), "unlink": (87, None),
    "mkdirat": (258, 34), "unlinkat": (263, 35), "renameat": (264, 38), "utimensat": (280, 88),
    "renameat2": (316, 276),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor architecture: its code in struct seccomp_data, its column above, and special calls."""

    code: int
    column: int
    clone: int
    fcntl: int
    ioctl: int
    kill: int
    tgkill: int
    prlimit64: int

    def program(self, pid: int, *, opens: bool, writes: bool) -> bytes:
        """The filter for process `pid`.

        opens: files may be opened (Landlock says which ones); writes: and changed.
        """
        to_itself = [*when(self.kill, [(0, EQUAL, (pid,))]), *when(self.tgkill, [(0, EQUAL, (pid,))])]
        return _common(self, opens, writes) + pack_filter([*to_itself, (RETURN, 0, 0, DENY)])


Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


@cache
def _common(machine: Machine, opens: bool, writes: bool) -> bytes:
    """The part of the filter that is the same for every process."""
    tables = [BASIC, *([OPENING] if opens else []), *([WRITING] if writes else [])]
    numbers = [n for table in tables for row in table.values() if (n := row[machine.column]) is not None]
    instructions: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, machine.code),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, UNKNOWN),
        *((EQUAL, len(numbers) - index, 0, number) for index, number in enumerate(numbers)),
        (JUMP, 0, 0, 1),
        (RETURN, 0, 0, ALLOW),
        # The C library falls back to clone, whose flags a filter can read: threads, but no processes.
        (EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, UNKNOWN),
        *when(machine.clone, [(0, ANY_BIT, (CLONE_THREAD,))]),
        *when(machine.fcntl, [(1, EQUAL, DESCRIPTOR_COMMANDS)]),
        *when(machine.ioctl, [(1, EQUAL, TERMINAL_QUERIES)]),
        # Reading one's own limits; both halves of the pointer to new limits must be null.
        *when(machine.prlimit64, [(0, EQUAL, (0,)), (2, EQUAL, (0,)), (2.5, EQUAL, (0,))]),
    ]
    return pack_filter(instructions)


def pack_filter(instructions: Sequence[Instruction]) -> bytes:
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)


def when(number: int, conditions: list[tuple[float, int, tuple[int, ...]]]) -> Iterator[Instruction]:
    """Allow a call when each condition (argument, comparison, values) holds for one of its values.

    Arguments are 64 bits wide; n is the low half of argument n, n + 0.5 its high half.
    """
    length = sum(1 + len(values) + 1 for _, _, values in conditions) + 1
    yield EQUAL, 0, length, number
    for argument, comparison, values in conditions:
        yield LOAD, 0, 0, 16 + int(8 * argument)
        for index, value in enumerate(values):
            yield comparison, len(values) - index, 0, value
        yield RETURN, 0, 0, DENY
    yield RETURN, 0, 0, ALLOW


MACHINES = {
    "x86_64": Machine(0xC000003E, 0, clone=56, fcntl=72, ioctl=16, kill=62, tgkill=234, prlimit64=302),
    "aarch64": Machine(0xC00000B7, 1, clone=220, fcntl=25, ioctl=29, kill=129, tgkill=131, prlimit64=261),
}
