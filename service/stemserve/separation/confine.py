"""What the separation process gives up before it looks at anything that a stranger has sent.

It decodes untrusted media with large libraries in C. Should one of them be taken over, it shall not
reach the network, nor the memory and the environment of the process that holds the token.

On Linux, without privileges and for good: a seccomp filter refuses every socket that is not local
to the machine, and what reads other processes; Landlock refuses TCP a second time, and any look
into processes outside, their environments and signals to them included; where root runs it, root's
powers go, but those over files. None of it concerns a GPU, whose driver is spoken to through
files. Elsewhere there is no such means; the log says so.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import resource
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

_NICE = 5
"""The API answers first."""

_FILES = 1024
_FILE_SIZE = 2**37
_OOM_SCORE = "800"
"""When memory runs out, the system ends this process before the one that keeps the jobs."""

_GPU = Path("/dev/nvidiactl")
_CGROUP_MEMORY = Path("/sys/fs/cgroup/memory.max")

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT, _LANDLOCK_VERSION = 444, 446, 1

_ARCHITECTURES = {
    # audit's name of it; capget, capset, seccomp, socket; ptrace, process_vm_readv, …_writev
    "x86_64": (0xC000003E, 125, 126, 317, 41, (101, 310, 311)),
    "aarch64": (0xC00000B7, 90, 91, 277, 198, (117, 270, 271)),
}
_CAPABILITIES_VERSION = 0x20080522
_CAPABILITIES_KEPT = 0b1111
"""Those over files, by which root reads what belongs to others: chown, dac_*, fowner."""

_IO_URING_SETUP, _PIDFD_GETFD = 425, 438
_X32 = 0x40000000

_log = logging.getLogger(__name__)


def confine() -> None:
    """Give up what the separation does not need; to be called before there are any threads."""
    os.nice(_NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _FILES)
    _limit(resource.RLIMIT_FSIZE, _FILE_SIZE)
    if sys.platform == "linux" and not _GPU.exists():  # CUDA maps far more than it uses
        _limit(resource.RLIMIT_DATA, _memory())
    if lacking := _refuse_network():
        _log.warning("the network cannot be kept from the separation process: %s", lacking)


def _limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    lower = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (lower, lower))


def _memory() -> int:
    """Bytes of memory that this machine or container has."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        memory = min(memory, int(_CGROUP_MEMORY.read_text()))
    return memory


def _refuse_network() -> str | None:
    """Give up the network; why that could not be done, or None."""
    if sys.platform != "linux":
        return f"{platform.system()} has no means for it"
    if platform.machine() not in _ARCHITECTURES:
        return f"the system calls of {platform.machine()} are not known here"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return f"no_new_privs: {_said()}"
    _drop_capabilities(libc)
    if told := _landlock(libc):
        _log.info("Landlock: %s", told)
    return _seccomp(libc)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Leave root's powers: some of them open other processes, whatever Landlock says."""
    _, capget, capset, *_ = _ARCHITECTURES[platform.machine()]
    header = struct.pack("=Ii", _CAPABILITIES_VERSION, 0)
    held = ctypes.create_string_buffer(24)
    if libc.syscall(capget, header, held):
        return
    effective, permitted, *_ = struct.unpack("=6I", held.raw)
    kept = struct.pack(
        "=6I", effective & _CAPABILITIES_KEPT, permitted & _CAPABILITIES_KEPT, 0, 0, 0, 0
    )
    libc.syscall(capset, header, kept)


def _landlock(libc: ctypes.CDLL) -> str | None:
    """Refuse TCP, and looks into other processes, as far as this kernel can."""
    version = libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if version < 4:
        return _said() if version < 0 else f"version {version} is too old"
    fields = [0, 0b11]  # none of files, for that would forbid moving them; to bind and to connect
    if version >= 6:
        fields.append(0b11)  # abstract sockets of, and signals to, what is outside
    rules = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = libc.syscall(_LANDLOCK_CREATE, rules, len(rules), 0)
    if ruleset < 0:
        return _said()
    try:
        return _said() if libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) else None
    finally:
        os.close(ruleset)


def _seccomp(libc: ctypes.CDLL) -> str | None:
    """Refuse every socket that is not of this machine, and reading other processes."""
    audit, _, _, seccomp, socket_call, refused = _ARCHITECTURES[platform.machine()]
    filter_ = _filter(audit, socket_call, (*refused, _IO_URING_SETUP, _PIDFD_GETFD))
    kept = ctypes.create_string_buffer(filter_)
    program = struct.pack("@HP", len(filter_) // 8, ctypes.addressof(kept))
    if libc.syscall(seccomp, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, program):
        return f"seccomp: {_said()}"
    return None


def _filter(audit: int, socket_call: int, refused: tuple[int, ...]) -> bytes:
    """The filter in classic BPF, as seccomp(2) describes it."""
    load, equal, at_least, give = 0x20, 0x15, 0x35, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EACCES
    number, architecture, family = 0, 4, 16

    def step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, operand)

    steps = [
        step(load, architecture),
        step(equal, audit, 1, 0),
        step(give, refuse),
        step(load, number),
        step(at_least, _X32, 0, 1),
        step(give, refuse),
    ]
    for call in refused:
        steps += [step(equal, call, 0, 1), step(give, refuse)]
    steps += [
        step(equal, socket_call, 1, 0),
        step(give, allow),
        step(load, family),
        step(equal, socket.AF_UNIX, 0, 1),
        step(give, allow),
        step(give, refuse),
    ]
    return b"".join(steps)


def _said() -> str:
    return os.strerror(ctypes.get_errno())
