# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""An end to looking at one process, whatever that does.

A read of another program's memory waits for whoever brings the page: a file system that it serves (FUSE), or that
program itself where it serves its own page faults (userfaultfd(2); for process_vm_readv(2) only, /proc/PID/mem answers
EIO there). No time-out is heeded then, death is. So who looks is a child of ours, and dies by this alarm where one
process takes too long. A file system that has taken the request and
does not answer keeps it even from dying: then it is left behind (see _ptrace/watchdog.py).
"""

from __future__ import annotations

import contextlib
import signal
from typing import Iterator

from .._errors import LivepatchError

#: How a child has died for which a process took too long.
OUT_OF_PATIENCE = signal.SIGALRM


@contextlib.contextmanager
def die_after(seconds: float) -> Iterator[None]:
    """This process, which must be a child made for it, is killed unless the block ends within `seconds`."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def endless(pid: int, seconds: float, left: int = 0) -> LivepatchError:
    """The error for a process that could not be looked at in that time; `left`: the child that is still at it, and
    cannot die.
    """
    if left:
        return LivepatchError(
            "not_permitted",
            "looking at process %d came to no end: a file system that serves it (FUSE) does not answer, and keeps "
            "process %d of this task, which waits for it, even from dying; a thread that it holds stays stopped"
            % (pid, left),
            "End that file system, or make it answer; then run the task again.",
        )
    return LivepatchError(
        "not_permitted",
        "looking at process %d came to no end within %d seconds: its memory cannot be read without its own help "
        "(userfaultfd, a FUSE file system), or it keeps changing" % (pid, seconds),
        "Restart that process; it is left as it is.",
    )
