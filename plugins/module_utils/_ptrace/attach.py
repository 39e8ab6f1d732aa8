# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Becoming the tracer of threads, and saying why when the kernel does not allow it."""

from __future__ import annotations

import errno
import os

from .._errors import LivepatchError
from .._process.process import Process
from .ptrace_requests import seize, suspend_seccomp

_PF_EXITING, _PF_IO_WORKER, _PF_KTHREAD = 0x4, 0x10, 0x200000
_CAP_SYS_ADMIN = 21


def seize_thread(process: Process, tid: int, stat: list[str] | None = None, options: int = 0) -> bool:
    """Seize one thread, stopping nobody; False when it runs no code of the program (it exits, or serves io_uring).

    A thread that serves io_uring can be seized, too (Linux 6.18), but its registers say nothing, and the request it
    waits for would be disturbed. `stat`: what Process.thread_stat() told of it, where that is known; `options`: more
    PTRACE_O_ flags.
    Raises LivepatchError already_traced, not_permitted or process_gone.
    """
    if _runs_none(stat or process.thread_stat(tid)):
        return False
    try:
        seize(tid, options)
    except OSError as error:
        if runs_no_code(process, tid):
            return False
        raise _explain(process, tid, error) from None
    return True


def check_traceable(process: Process) -> None:
    """What stopping all its threads would be refused for, as far as that can be known without stopping any.

    Raises LivepatchError already_traced, not_permitted, process_gone.
    """
    traced = [tid for tid in process.threads() if _tracer(process, tid)]
    if traced:
        raise _explain(process, traced[0], OSError(errno.EPERM, os.strerror(errno.EPERM)))


def check_callable(process: Process) -> None:
    """What letting any one thread make system calls would be refused for, known and raised as by check_traceable()."""
    free = [tid for tid in process.threads() if not _tracer(process, tid)]
    if not free:
        check_traceable(process)
    elif not may_suspend_filters() and all(is_confined(process, tid) for tid in free):
        raise _filters_stand(process)


def may_suspend_filters() -> bool:
    """True when this process may suspend the seccomp filters of others (ptrace(2), PTRACE_O_SUSPEND_SECCOMP)."""
    with Process(os.getpid()) as this:
        return bool(int(this.status("CapEff") or "0", 16) >> _CAP_SYS_ADMIN & 1) and this.status("Seccomp") in ("", "0")


def let_past_seccomp(process: Process, tid: int) -> bool:
    """From now on a stopped thread's calls are not judged by its seccomp filters; True when it has any.

    Only now that it is stopped: before that it would make calls of its own past them. Asked for without filters, too:
    another thread may give this one some at any time (SECCOMP_FILTER_FLAG_TSYNC). Raises LivepatchError not_permitted.
    """
    try:
        suspend_seccomp(tid, True)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EINVAL):
            if not is_confined(process, tid):
                return False
            raise _filters_stand(process) from None
        raise _explain(process, tid, error) from None
    return is_confined(process, tid)


def _filters_stand(process: Process) -> LivepatchError:
    return LivepatchError(
        "not_permitted",
        "%s confines itself with seccomp filters, and they may not be suspended here" % process,
        "Run the task as root of the host, not in a container nor under a filter of its own "
        "(PTRACE_O_SUSPEND_SECCOMP needs CAP_SYS_ADMIN there).",
    )


def is_confined(process: Process, tid: int) -> bool:
    """True when seccomp judges this thread's system calls: each thread may have filters of its own (seccomp(2))."""
    try:
        return process.status("Seccomp", "task/%d/" % tid) not in ("", "0")
    except LivepatchError:
        return False


def thread_state(process: Process, tid: int) -> str:
    """One letter as in proc_pid_stat(5): R, S, D, ...; empty when the thread is gone."""
    return "".join(process.thread_stat(tid)[:1])


def runs_no_code(process: Process, tid: int) -> bool:
    """True for a thread that is gone or exiting, or is the kernel's (io_uring's workers)."""
    return _runs_none(process.thread_stat(tid))


def _runs_none(fields: list[str]) -> bool:
    return not fields or fields[0] in "ZX" or bool(int(fields[6]) & (_PF_EXITING | _PF_IO_WORKER | _PF_KTHREAD))


def _tracer(process: Process, tid: int) -> int:
    try:
        return int(process.status("TracerPid", "task/%d/" % tid) or 0)
    except (LivepatchError, OSError):
        return 0


def _explain(process: Process, tid: int, error: OSError) -> LivepatchError:
    if error.errno == errno.ESRCH or process.has_exited():
        return LivepatchError("process_gone", "process %d has exited" % process.pid)
    tracer = _tracer(process, tid)
    if tracer:
        try:
            with Process(tracer) as other:
                name = str(other)
        except LivepatchError:
            name = "process %d" % tracer
        return LivepatchError("already_traced", "%s is being traced by %s" % (process, name))
    if error.errno == errno.EPERM:
        os.close(process.open("mem", os.O_RDWR))  # where that is denied, too, the error says why
        return LivepatchError(
            "not_permitted",
            "%s may be looked into, but not traced: someone outside this PID namespace traces it, or ptrace is "
            "forbidden to this task" % process,
            "End the other tracer (a debugger on the container's host), or run the task on the host itself.",
        )
    return LivepatchError("internal", "cannot trace thread %d of %s: %s" % (tid, process, error))
