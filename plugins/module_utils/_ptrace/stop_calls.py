# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The system calls that stop threads, ask for their registers and let them go, made ready before the first of them.

Written for what mostly happens: a thread stops as it was asked to. Whatever else happens to one is found, and left to
the caller.
"""

from __future__ import annotations

import array
import ctypes
import os
import signal
from typing import Sequence

from . import x86_64 as arch
from .call_batch import CallBatch
from .ptrace_requests import NT_PRSTATUS, PTRACE_EVENT_STOP, PTRACE_INTERRUPT, WALL, not_traced
from .python_ptrace import PTRACE_DETACH, PTRACE_GETREGSET

_PTRACE, _WAITID, _GETPID = (arch.SYSCALLS[name] for name in ("ptrace", "waitid", "getpid"))
# A stop is looked at and not taken, see wait_now().
_LOOK = os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT | WALL
# siginfo_t of a child (waitid(2)): its size, where si_status is, and what that is for the stop that was asked for. The
# four bytes behind it stay 0.
_INFO, _STATUS_AT, _STOPPED = 128, 24, signal.SIGTRAP | PTRACE_EVENT_STOP << 8
_VECTOR = 16  # struct iovec


class StopCalls:
    """For `threads`, stopped in this order; `first` of them, the last ones, are the first to be let go."""

    def __init__(self, threads: Sequence[int], first: int = 0) -> None:
        self.threads = list(threads)
        count = len(self.threads)
        asleep = count - first
        self._released = {tid: at for at, tid in enumerate(self.threads[asleep:] + self.threads[:asleep])}
        self._infos = ctypes.create_string_buffer(_INFO * count)
        self._registers = ctypes.create_string_buffer(arch.REGISTER_BYTES * count)
        self._happened = memoryview(self._infos).cast("B").cast("i")  # si_signo comes first, 0 for nothing
        registers, infos = ctypes.addressof(self._registers), ctypes.addressof(self._infos)
        self._vectors = array.array("Q")
        for index in range(count):
            self._vectors.extend((registers + index * arch.REGISTER_BYTES, arch.REGISTER_BYTES))
        vectors = self._vectors.buffer_info()[0]
        self._interrupts, self._looks, self._releases = CallBatch(count), CallBatch(2 * count), CallBatch(count)
        for index, tid in enumerate(self.threads):
            info = infos + index * _INFO
            self._interrupts.add(_PTRACE, PTRACE_INTERRUPT, tid)
            self._looks.add(_WAITID, os.P_PID, tid, info, _LOOK, place=info + _STATUS_AT, expected=_STOPPED)
            self._looks.add(_PTRACE, PTRACE_GETREGSET, tid, NT_PRSTATUS, vectors + index * _VECTOR)
        for tid in self._released:
            self._releases.add(_PTRACE, PTRACE_DETACH, tid)

    def interrupt(self) -> None:
        """Ask all threads to stop; who has exited does not."""
        self._interrupts.run_all()

    def look(self, first: int, end: int) -> int:
        """See which threads have stopped, from index `first` up to `end`; the index of the first that has not, or not
        in the way that was asked for, or `end`.
        """
        return self._looks.run(2 * first, 2 * end) // 2

    def nothing_yet(self, index: int) -> bool:
        """True when look() found that nothing has happened yet to the thread at which it came to an end."""
        return self._looks.result(2 * index) == 0 and not self._happened[index * (_INFO // 4)]

    def registers(self, first: int, end: int) -> bytes:
        """The NT_PRSTATUS bytes of threads that look() has got past, one behind the other."""
        return bytes(memoryview(self._registers)[first * arch.REGISTER_BYTES : end * arch.REGISTER_BYTES])

    def let_go(self, signals: dict[int, int], held: dict[int, bytes]) -> None:
        """Let those threads go that are in `held`, with a signal those that are to get one. Nobody else: who was not
        seen to stop may have stopped since, for a signal that would be lost.
        """
        for tid, number in signals.items():
            if tid in self._released:
                self._releases.set_call(self._released[tid], _PTRACE, PTRACE_DETACH, tid, 0, number)
        for tid in self._released.keys() - held.keys():
            self._releases.set_call(self._released[tid], _GETPID)
        self._releases.run_all()

    def note_who_went(self) -> None:
        """Note who is not traced any more; after let_go(), when there is time for it."""
        not_traced(tid for tid, result in zip(self._released, self._releases.results()) if result == 0)
