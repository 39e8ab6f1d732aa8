# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Many processes are shared out among several children of ours, which work on them at the same time.

Processes that share one address space (CLONE_VM without CLONE_THREAD) are never worked on by two at once: who begins
with one waits while another child is at a process that has the same memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import time
from typing import Iterator

from .._process.process import Process
from .._process.selection import Selection
from .._process.shared_memory import may_know_shared, share_memory

# As many children at most, and so many processes to look at for each: to begin one takes as long as to load into three.
# One more than there are processors: now and then each waits for a thread to stop (2 processors: a fifth less time).
_MOST_CHILDREN, _LEAST_PROCESSES = 5, 16
_SLOT = struct.Struct("<qq")  # the number of a child, and that of a thread of the process that it is at, 0 for none
_GONE = -1
# Between two looks whether another child is done with memory that is shared, seconds.
_PAUSE = 0.001


def shares_of(selection: Selection) -> int:
    """In how many shares to work on the processes that are meant: 1 where more are of no use, or not safe."""
    candidates = len(selection.pids) or sum(name.isdigit() for name in os.listdir("/proc"))
    processors = len(os.sched_getaffinity(0))
    most = min(processors + 1, _MOST_CHILDREN, candidates // _LEAST_PROCESSES)
    return most if processors > 1 and most > 1 and may_know_shared() else 1


class Turns:
    """Who the children are and what each of them is at, in memory that all of them share.

    To be made before they are. Looked at and changed only under a lock that ends with who holds it (fcntl(2), F_SETLK).
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._slots = mmap.mmap(-1, count * _SLOT.size)
        self._lock = os.memfd_create("turns", os.MFD_CLOEXEC)

    def close(self) -> None:
        """Give all of it back."""
        self._slots.close()
        os.close(self._lock)

    def join(self, index: int) -> list[int]:
        """Child `index` begins: the numbers of all children, known once all have begun. None may work on another."""
        self._set(index, os.getpid(), 0)
        while not all(child for child, _thread in self._all()):
            time.sleep(_PAUSE)
        return [child for child, _thread in self._all()]

    def leave(self, index: int) -> None:
        """Child `index` is over, however that came."""
        self._set(index, _GONE, 0)

    @contextlib.contextmanager
    def taken(self, index: int, process: Process) -> Iterator[None]:
        """Child `index` is at this process while the block runs, and no other is at its memory. Waits until it may."""
        while not self._took(index, process.living_thread()):
            time.sleep(_PAUSE)
        try:
            yield
        finally:
            self._set(index, os.getpid(), 0)

    def _took(self, index: int, thread: int) -> bool:
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            others = [at for slot, (_child, at) in enumerate(self._all()) if slot != index and at]
            if thread and any(share_memory(thread, other) for other in others):
                return False
            self._set(index, os.getpid(), thread)
            return True
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def _set(self, index: int, child: int, thread: int) -> None:
        _SLOT.pack_into(self._slots, index * _SLOT.size, child, thread)

    def _all(self) -> list[tuple[int, int]]:
        return list(_SLOT.iter_unpack(self._slots[:]))
