# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""One run at a time on one process: whoever comes second waits, or is told who is at it.

The lock is an flock(2) on /proc/PID/personality: only root and the process's own user can open it, it is there as long
as any thread of the process (/proc/PID/mem ends with the first one), it leaves no file behind, and it ends with the run
that holds it, however that dies. Runs that see the process through different mounts of proc (one on the host, one in a
container) do not see each other's lock; tracing then keeps them apart (already_traced).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import Iterator

from .._errors import LivepatchError
from .process import Process

# Between two tries, seconds.
_PAUSE = 0.005


@contextlib.contextmanager
def exclusive(process: Process, timeout: float) -> Iterator[None]:
    """Nobody else works on `process` while the block runs; waited for up to `timeout` seconds.

    Raises LivepatchError already_traced when another run is at it all that time, not_permitted, process_gone.
    """
    descriptor = process.open("personality")
    try:
        end = time.monotonic() + timeout
        while not _locked(descriptor):
            if time.monotonic() + _PAUSE > end:
                raise LivepatchError(
                    "already_traced",
                    "another run of cgl.livepatch%s is at work on %s" % (_holder(descriptor), process),
                    "Run the task again when that has ended, or give a longer 'timeout'.",
                )
            time.sleep(_PAUSE)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    """Who holds the lock, in words, from proc_locks(5); empty where that cannot be told."""
    inode = ":%d" % os.fstat(descriptor).st_ino
    with contextlib.suppress(OSError, ValueError), open("/proc/locks", encoding="ascii") as stream:
        for line in stream:
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].endswith(inode):
                return " (process %d)" % int(fields[4])
    return ""
