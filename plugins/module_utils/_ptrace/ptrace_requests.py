# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The ptrace requests this collection makes (ptrace(2)).

python-ptrace gives the structures and the numbers. It knows no PTRACE_SEIZE or PTRACE_INTERRUPT, its debugger object
attaches thread by thread with stops in between, and its call in Python takes 0.4 us more than the one here, which a
stop makes three times a thread; in C (cptrace, which Debian's package has) it loses the number of an error (0.9.8).
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from typing import Callable, Iterable

from .python_ptrace import (
    PTRACE_DETACH,
    PTRACE_GETREGSET,
    PTRACE_SETREGSET,
    PTRACE_SYSCALL,
    iovec_struct,
)

PTRACE_CONT = 7
PTRACE_SETOPTIONS = 0x4200
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
PTRACE_GETSIGMASK, PTRACE_SETSIGMASK = 0x420A, 0x420B
PTRACE_GET_RSEQ_CONFIGURATION, _RSEQ_CONFIGURATION_BYTES = 0x420F, 24
PTRACE_O_TRACESYSGOOD, PTRACE_O_TRACEEXEC, PTRACE_O_SUSPEND_SECCOMP = 1, 1 << 4, 1 << 21
PTRACE_EVENT_EXEC, PTRACE_EVENT_STOP = 4, 128
WALL = 0x40000000
NT_PRSTATUS = 1

_libc = ctypes.CDLL(None, use_errno=True)
ptrace = _libc.ptrace
ptrace.argtypes, ptrace.restype = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long), ctypes.c_long


class _Seized(threading.local):
    def __init__(self) -> None:
        self.threads: set[int] = set()


_by_this_thread = _Seized()


def traces_any() -> bool:
    """True while the calling thread may be the tracer of others: it has seized one, and neither let it go nor seen it
    end. One that was killed while it was stopped remains, and its parent cannot wait for it, until its tracer ends.
    """
    return bool(_by_this_thread.threads)


def seize(tid: int, options: int = 0) -> None:
    """Become the tracer of a thread without stopping it. Raises OSError (EPERM, ESRCH)."""
    _call(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD | options)
    _by_this_thread.threads.add(tid)


def suspend_seccomp(tid: int, suspended: bool) -> None:
    """Whether a stopped thread's seccomp filters judge its system calls, until it is let go.

    Raises OSError EPERM (without CAP_SYS_ADMIN, or under a filter ourselves), EINVAL (CONFIG_CHECKPOINT_RESTORE).
    """
    _call(PTRACE_SETOPTIONS, tid, 0, PTRACE_O_TRACESYSGOOD | (PTRACE_O_SUSPEND_SECCOMP if suspended else 0))


def interrupt(tid: int) -> None:
    """Ask a seized thread to stop. Raises OSError ESRCH when it has exited."""
    _call(PTRACE_INTERRUPT, tid, 0, 0)


def detach(tid: int, signal: int = 0) -> None:
    """Let a stopped thread go for good, delivering `signal`. Raises OSError ESRCH when it is not stopped or gone."""
    _call(PTRACE_DETACH, tid, 0, signal)
    _by_this_thread.threads.discard(tid)


def not_traced(threads: Iterable[int]) -> None:
    """Note that these were let go, by other means than detach()."""
    _by_this_thread.threads.difference_update(threads)


def resume(tid: int, signal: int = 0) -> None:
    """Let a stopped thread run on as our tracee, delivering `signal`. Raises OSError ESRCH."""
    _call(PTRACE_CONT, tid, 0, signal)


def resume_to_syscall(tid: int, signal: int = 0) -> None:
    """Let a stopped thread run to the next entry to, or exit from, a system call. Raises OSError ESRCH."""
    _call(PTRACE_SYSCALL, tid, 0, signal)


class RegisterBuffer:
    """Room for a register set of at most `size` bytes, for any number of threads: to make one takes 1 us."""

    def __init__(self, size: int) -> None:
        self.content = ctypes.create_string_buffer(size)
        self.vector = iovec_struct()
        self.vector.buf = ctypes.addressof(self.content)
        self.address = ctypes.addressof(self.vector)


def get_register_set(tid: int, kind: int, buffer: RegisterBuffer) -> bytes:
    """A register set (NT_ number `kind`) of a stopped thread, as far as `buffer` has room. Raises OSError ESRCH."""
    buffer.vector.len = len(buffer.content)
    _call(PTRACE_GETREGSET, tid, kind, buffer.address)
    return buffer.content.raw[: buffer.vector.len]


def set_register_set(tid: int, kind: int, raw: bytes) -> None:
    """Set a register set of a stopped thread. Raises OSError ESRCH."""
    buffer = ctypes.create_string_buffer(raw, len(raw))
    vector = iovec_struct()
    vector.buf = ctypes.addressof(buffer)
    vector.len = len(raw)
    _call(PTRACE_SETREGSET, tid, kind, ctypes.addressof(vector))


def in_restartable_sequence(tid: int, read: Callable[[int, int], bytes]) -> bool:
    """True when a stopped thread may be inside a restartable sequence (rseq(2)), which a call from there would break.

    `read` reads its memory. A pointer to a sequence that was left already may still stand there: that counts, too.
    Raises OSError ESRCH; kernels without PTRACE_GET_RSEQ_CONFIGURATION (before 5.13) count as having no sequences.
    """
    buffer = ctypes.create_string_buffer(_RSEQ_CONFIGURATION_BYTES)
    try:
        _call(PTRACE_GET_RSEQ_CONFIGURATION, tid, len(buffer), ctypes.addressof(buffer))
    except OSError as error:
        if error.errno in (errno.EIO, errno.EINVAL):
            return False
        raise
    area = int.from_bytes(buffer.raw[:8], "little")
    return bool(area) and any(read(area + 8, 8))


def get_signal_mask(tid: int) -> int:
    """The set of blocked signals of a stopped thread, one bit a signal. Raises OSError."""
    mask = ctypes.c_uint64()
    _call(PTRACE_GETSIGMASK, tid, 8, ctypes.addressof(mask))
    return mask.value


def set_signal_mask(tid: int, mask: int) -> None:
    """Set the blocked signals of a stopped thread. Raises OSError."""
    value = ctypes.c_uint64(mask)
    _call(PTRACE_SETSIGMASK, tid, 8, ctypes.addressof(value))


def wait_now(tid: int) -> int | None:
    """The wait status of a tracee that changed state, None when it did not yet.

    A stop is looked at and not taken (WNOWAIT): taking it takes the signal from the thread, and if we died then, the
    signal would be lost. Raises ChildProcessError when it is no tracee (any more).
    """
    found = os.waitid(os.P_PID, tid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT | WALL)
    if found is None:
        return None
    if found.si_code in (os.CLD_EXITED, os.CLD_KILLED, os.CLD_DUMPED):
        status = os.waitpid(tid, os.WNOHANG | WALL)[1]
        _by_this_thread.threads.discard(tid)
        return status
    return found.si_status << 8 | 0x7F


def is_event_stop(status: int) -> bool:
    """True for the stop that PTRACE_INTERRUPT makes, and for a group stop."""
    return os.WIFSTOPPED(status) and status >> 16 == PTRACE_EVENT_STOP


def is_exec_stop(status: int) -> bool:
    """True for the stop of a thread that has just become another program (PTRACE_O_TRACEEXEC)."""
    return os.WIFSTOPPED(status) and status >> 16 == PTRACE_EVENT_EXEC


def is_syscall_stop(status: int) -> bool:
    """True for the stop at entry to, or exit from, a system call."""
    return os.WIFSTOPPED(status) and os.WSTOPSIG(status) == 0x80 | 5


def signal_of(status: int) -> int:
    """The signal that a stop is about to deliver, 0 when the stop is of another kind."""
    if os.WIFSTOPPED(status) and status >> 16 == 0 and not is_syscall_stop(status):
        return os.WSTOPSIG(status)
    return 0


def _call(request: int, tid: int, address: int, data: int) -> None:
    if ptrace(request, tid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, "%s (ptrace request %#x, thread %d)" % (os.strerror(number), request, tid))
