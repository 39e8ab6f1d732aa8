# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Becoming the tracer of threads, and saying why when the kernel does not allow it."""

from __future__ import annotations

import errno

from .._errors import LivepatchError
from .._process.process import Process
from .ptrace_requests import PTRACE_O_SUSPEND_SECCOMP, PTRACE_O_TRACESYSGOOD, seize

_PF_EXITING, _PF_IO_WORKER, _PF_KTHREAD = 0x4, 0x10, 0x200000


def seize_thread(process: Process, tid: int, past_seccomp: bool = False) -> bool:
    """Seize one thread, stopping nobody; False when it runs no code of the program (it exits, or serves io_uring).

    `past_seccomp`: system calls made for us are not judged by the thread's seccomp filters (needs CAP_SYS_ADMIN).
    Raises LivepatchError already_traced, not_permitted or process_gone.
    """
    try:
        seize(tid, PTRACE_O_TRACESYSGOOD | (PTRACE_O_SUSPEND_SECCOMP if past_seccomp else 0))
    except OSError as error:
        if runs_no_code(process, tid):
            return False
        if past_seccomp and error.errno in (errno.EPERM, errno.EINVAL) and not _tracer(process, tid):
            raise LivepatchError(
                "not_permitted",
                "%s confines itself with seccomp filters, and they may not be suspended here" % process,
                "Run the task as root with CAP_SYS_ADMIN (PTRACE_O_SUSPEND_SECCOMP needs it).",
            ) from None
        raise _explain(process, tid, error) from None
    return True


def _thread_file(process: Process, tid: int, name: str) -> str:
    try:
        return process.read_text("task/%d/%s" % (tid, name))
    except LivepatchError:
        return ""


def thread_state(process: Process, tid: int) -> str:
    """One letter as in proc_pid_stat(5): R, S, D, ...; empty when the thread is gone."""
    return _thread_file(process, tid, "stat").rpartition(")")[2].strip()[:1]


def runs_no_code(process: Process, tid: int) -> bool:
    """True for a thread that is gone or exiting, or is the kernel's (io_uring's workers)."""
    fields = _thread_file(process, tid, "stat").rpartition(")")[2].split()
    return not fields or fields[0] in "ZX" or bool(int(fields[6]) & (_PF_EXITING | _PF_IO_WORKER | _PF_KTHREAD))


def _tracer(process: Process, tid: int) -> int:
    for line in _thread_file(process, tid, "status").splitlines():
        if line.startswith("TracerPid:"):
            return int(line.split()[1])
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
        return LivepatchError("not_permitted", "not allowed to trace %s (thread %d)" % (process, tid))
    return LivepatchError("internal", "cannot trace thread %d of %s: %s" % (tid, process, error))
