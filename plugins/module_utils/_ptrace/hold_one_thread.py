# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Holding one thread while all others run on: to look at it, or to make it do system calls."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Iterator

from .._process.process import Process
from .attach import seize_thread, thread_state
from .ptrace_requests import detach, interrupt, is_event_stop, resume, signal_of
from .scheduling import real_time
from .tracer import let_late_threads_go, register_buffer, stopped_registers
from .wait import child_signals_held, wait_until
from .watchdog import READY, arm, armed

# How long one thread may be held at most, seconds (it takes some 100 us), and how often we look whether it has stopped.
LONGEST_HOLD, LOOK = 0.1, 0.02
_STARVED = 2.0


class HeldThread:
    """One stopped thread; `registers` are its NT_PRSTATUS bytes as they were when it stopped.

    `held_us` is how long it was held, microseconds, known once it was let go.
    """

    def __init__(self, process: Process, tid: int) -> None:
        self.process = process
        self.tid = tid
        self.began = time.monotonic()
        self.registers = b""
        self.held_us = 0
        self._signal = 0
        self._buffer = register_buffer()

    def stop(self, deadline: float, plainly: bool) -> bool:
        """Stop the thread; False when it exited first or did not stop by `deadline` (time.monotonic seconds).

        One that only waits for a processor is given longer: it stops once it gets one, and is held no longer for it.
        `plainly`: signals that arrive first are delivered, until the stop is the one asked for. Raises OSError.
        """
        interrupt(self.tid)
        while True:
            status = self._wait(deadline)
            if status is None or not os.WIFSTOPPED(status):
                return False
            self._signal = signal_of(status)
            self.registers = stopped_registers(self.tid, self._buffer)
            if is_event_stop(status) or not plainly:
                return True
            resume(self.tid, self._signal)

    def _wait(self, deadline: float) -> int | None:
        """Its next wait status, None when there is none by `deadline`. It is not held yet, but may be any moment."""
        while True:
            arm(LONGEST_HOLD)
            now = time.monotonic()
            status = wait_until(self.tid, now + LOOK if deadline <= now else min(deadline, now + LOOK))
            if status is not None:
                return status
            late = time.monotonic() - deadline
            if late >= _STARVED or (late >= 0 and thread_state(self.process, self.tid) != "R"):
                return None

    def release(self) -> None:
        """Let it go as it was."""
        with contextlib.suppress(OSError):  # killed while held
            detach(self.tid, self._signal)
        self.held_us = int((time.monotonic() - self.began) * 1e6)


@contextlib.contextmanager
def held_thread(process: Process, tid: int, timeout: float, plainly: bool = False) -> Iterator[HeldThread | None]:
    """One thread stopped while the block runs; None when it exited or could not be stopped within `timeout` seconds.

    Inside as_tracer(). Raises LivepatchError already_traced, not_permitted or process_gone.
    """
    above = process.real_time_priority
    with armed(READY), child_signals_held(), real_time(above):
        arm(LONGEST_HOLD)
        if not seize_thread(process, tid):
            yield None
            return
        if not thread_state(process, tid):  # it exited, and another process got its number before we seized it
            let_late_threads_go(process, [tid])
            yield None
            return
        thread = HeldThread(process, tid)
        try:
            held = thread.stop(time.monotonic() + timeout, plainly)
        except OSError:
            held = False
        try:
            yield thread if held else None
        finally:
            if held:
                thread.release()
            else:
                let_late_threads_go(process, [tid])
