"""What the kernel keeps a program from, asked for by its own calls: Linux, x86-64 and arm64.

A wall stands where the system allows it; nobody behind it can take it down, and children have it
too. A function returns whether it could put its wall up. Imports are few: each fork copies them.
"""

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable

LINUX = sys.platform == "linux"
WALLS = {
    "namespaces": "answers run among the other processes and on the network",
    "landlock": "answers can read the files of this machine",
    "seccomp": "answers may ask the kernel for whatever this user may",
}
"""What is not held where a wall is missing."""

_NEW_SPACES = 0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x8000000 | 0x4000000
"""User, mounts, processes, network, IPC, host name (linux/sched.h)."""
_RECURSIVE, _PRIVATE, _READ_ONLY, _NO_SUID_NO_DEVICES = 0x4000, 1 << 18, 1, 2 | 4
_MOUNT_SETATTR, _AT_RECURSIVE, _AT_FDCWD = 442, 0x8000, -100
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _READ_FILE, _READ_FOLDER = 1 << 1, 1 << 2, 1 << 3
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""How many rights on files a version of Landlock knows (linux/landlock.h); later ones 16."""
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER, _DIE_WITH_PARENT = 38, 22, 2, 1

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""The column of the numbers below, and the kernel's own name."""
_CAPSET = (126, 91)
_REFUSED = {
    "execve": (59, 221), "execveat": (322, 281), "unshare": (272, 97), "setns": (308, 268),
    "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "io_uring_setup": (425, 425),
    "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "fanotify_init": (300, 262), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "shmget": (29, 194), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180), "setpriority": (141, 140), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
}  # fmt: skip
"""Calls that need no privilege and that neither a program nor its worker has a use for."""
_PROCESSES = {
    "fork": (57, -1), "vfork": (58, -1), "kill": (62, 129), "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
}  # fmt: skip
"""Calls for the worker alone."""
_CLONE, _TGKILL, _PRLIMIT, _CLONE3 = (56, 220), (234, 131), (302, 261), 435
_THREAD = 0x10000
_LOAD, _EQUAL, _NOT_LESS, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_ALLOW, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS

_Instruction = tuple[int, int, int, int]
_libc = ctypes.CDLL(None, use_errno=True)
_machine = _MACHINES.get(os.uname().machine) if LINUX else None


def new_namespaces() -> bool:
    """For the children to come: processes, network and IPC of their own; all files read-only."""
    user, group = os.getuid(), os.getgid()
    maps = {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}
    if not LINUX or _libc.unshare(_NEW_SPACES):
        return False
    try:
        for name, line in maps.items():
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    except OSError:
        return False
    change = struct.pack("QQQQ", _READ_ONLY, 0, 0, 0)
    return not (
        _libc.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None)
        or _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, change, len(change))
    )


def memory_folder(path: str, size: int) -> bool:
    """An empty file system of `size` bytes in memory at `path`; it goes with its namespace."""
    options = f"size={size},nr_inodes=4096,mode=700".encode()
    return not _libc.mount(b"tmpfs", path.encode(), b"tmpfs", _NO_SUID_NO_DEVICES, options)


def drop_privileges() -> None:
    """No capability is left, root's neither; and the process ends with its parent."""
    if _machine:
        _libc.syscall(_CAPSET[_machine[0]], struct.pack("Ii", 0x20080522, 0), bytes(24))
        _libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        _libc.prctl(_DIE_WITH_PARENT, 9, 0, 0, 0)


def keep_files(readable: Iterable[str], writable: str) -> bool:
    """Landlock: of all files `readable` may be read, and those in `writable` changed."""
    version = _libc.syscall(_CREATE_RULESET, None, 0, 1) if LINUX else -1
    if version < 1:
        return False
    every = (1 << _RIGHTS.get(version, 16)) - 1
    rules = _libc.syscall(_CREATE_RULESET, struct.pack("Q", every), 8, 0)
    try:
        for path in readable:
            _allow(rules, path, _READ_FILE | _READ_FOLDER)
        _allow(rules, writable, every)
        _allow(rules, os.devnull, _READ_FILE | _WRITE_FILE)
        return not _libc.syscall(_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    if os.path.exists(path):
        place = os.open(path, os.O_PATH)
        rights &= -1 if os.path.isdir(path) else _READ_FILE | _WRITE_FILE
        _libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, place), 0)
        os.close(place)


def refuse_calls() -> bool:
    """Seccomp: none of `_REFUSED`."""
    return _machine is not None and _install(_refusals)


def refuse_processes() -> bool:
    """Seccomp: threads, but no process; signals and limits for nobody but this process."""
    if _machine is None:
        return False
    struct.pack_into("I", _no_processes, _OWN, os.getpid())
    return _install(_no_processes)


def _refused(number: int) -> list[_Instruction]:
    return [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)] if number >= 0 else []


def _only_if(number: int, test: int, operand: int) -> list[_Instruction]:
    """The call `number` is allowed if its first argument passes the test."""
    return [
        (_EQUAL, 0, 4, number), (_LOAD, 0, 0, 16), (test, 1, 0, operand),
        (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW),
    ]  # fmt: skip


def _program(machine: int, steps: list[_Instruction]) -> ctypes.Array[ctypes.c_char]:
    """A filter; of another architecture, or of x86's 32-bit calls, it allows nothing."""
    program = [
        (_LOAD, 0, 0, 4), (_EQUAL, 1, 0, machine), (_RETURN, 0, 0, _REFUSE),
        (_LOAD, 0, 0, 0), (_NOT_LESS, 0, 1, 0x40000000), (_RETURN, 0, 0, _REFUSE),
        *steps, (_RETURN, 0, 0, _ALLOW),
    ]  # fmt: skip
    return ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))


def _install(program: ctypes.Array[ctypes.c_char]) -> bool:
    pointer = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(program))
    return not _libc.prctl(_SET_SECCOMP, _FILTER, pointer, 0, 0)


if _machine:  # what a child uses is made before it is forked
    _column, _name = _machine
    _refusals = _program(_name, [s for call in _REFUSED.values() for s in _refused(call[_column])])
    _no_processes = _program(_name, [
        *_only_if(_TGKILL[_column], _EQUAL, 0),
        *_only_if(_PRLIMIT[_column], _EQUAL, 0),
        *_only_if(_CLONE[_column], _ANY_BIT, _THREAD),
        (_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _UNKNOWN),  # then libc calls clone
        *(step for call in _PROCESSES.values() for step in _refused(call[_column])),
    ])  # fmt: skip
    _OWN = 8 * 8 + 4  # where the process's number stands: the operand of the ninth instruction
