"""Which system calls a confined command may not make: what no compiler, shell or test needs.

A command runs other programs, so it gets a list of what is denied (`sandbox_syscalls` lists what is allowed,
for single Python programs). Numbers: x86_64 after arch/x86/entry/syscalls/syscall_64.tbl, aarch64 after
asm-generic/unistd.h.
"""

from __future__ import annotations

from kascade.sandbox.allowed_syscalls import (
    ALLOW,
    ARCHITECTURE,
    AT_LEAST,
    CLONE3,
    DENY,
    EQUAL,
    KILL,
    LOAD,
    MACHINES,
    NUMBER,
    RETURN,
    UNKNOWN,
    X32,
    Instruction,
    pack_filter,
    when,
)

NEW_NAMESPACES = 0x7E020000  # the CLONE_NEW* flags of clone(2)
ANY_OF = 0x45  # BPF: jump if any of these bits is set

# Name: (x86_64, aarch64); None where a machine has no such call.
NETWORK: dict[str, tuple[int | None, int | None]] = {"socket": (41, 198)}
OTHER_PROCESSES: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "setpriority": (141, 140), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}  # fmt: skip
KERNEL: dict[str, tuple[int | None, int | None]] = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "mknod": (133, None), "mknodat": (259, 33), "swapon": (167, 224),
    "swapoff": (168, 225), "reboot": (169, 142), "sethostname": (170, 161), "setdomainname": (171, 162),
    "init_module": (175, 105), "delete_module": (176, 106), "finit_module": (313, 273),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "bpf": (321, 280),
    "perf_event_open": (298, 241), "add_key": (248, 217), "request_key": (249, 218),
    "keyctl": (250, 219), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "acct": (163, 89),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "syslog": (103, 116), "quotactl": (179, 60), "iopl": (172, None),
    "ioperm": (173, None), "modify_ldt": (154, None), "vhangup": (153, 58), "personality": (135, 92),
}  # fmt: skip
SIGNALS: dict[str, tuple[int | None, int | None]] = {
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131)
}  # fmt: skip


def command_filter(machine_name: str, *, signals: bool) -> bytes:
    """The filter of a command; signals: whether others' processes are out of reach of its signals."""
    machine = MACHINES[machine_name]
    tables = [NETWORK, OTHER_PROCESSES, KERNEL, *([] if signals else [SIGNALS])]
    numbers = [n for table in tables for row in table.values() if (n := row[machine.column]) is not None]
    instructions: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, machine.code),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (AT_LEAST, 0, 1, X32),
        (RETURN, 0, 0, UNKNOWN),
        (EQUAL, 0, 1, CLONE3),  # the C library falls back to clone, whose flags a filter can read
        (RETURN, 0, 0, UNKNOWN),
        (EQUAL, 0, 4, machine.clone),
        (LOAD, 0, 0, 16),
        (ANY_OF, 0, 1, NEW_NAMESPACES),
        (RETURN, 0, 0, DENY),
        (RETURN, 0, 0, ALLOW),
        *when(machine.prlimit64, [(0, EQUAL, (0,))]),  # its own limits only
        *((EQUAL, len(numbers) - index, 0, number) for index, number in enumerate(numbers)),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, DENY),
    ]
    return pack_filter(instructions)
