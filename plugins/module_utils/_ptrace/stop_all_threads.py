# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Stopping every thread of a process, for as short as can be, and letting them go as if nothing had happened.

Seizing stops nobody, so it comes first. The stop begins with the first PTRACE_INTERRUPT and ends with the last
PTRACE_DETACH; what is done for each thread in it is written plainly (contextlib.suppress alone would take 0.4 us).
Threads that are using a processor are stopped last and released first; those asleep are released in the order in which
they stopped, so that none of them waits for the whole of it. Every kind of stop will do: a thread that stops to take a
signal takes it when it is released.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Iterator

from .._errors import LivepatchError
from .._process.process import Process, real_time_priority
from .attach import seize_thread
from .ptrace_requests import detach, interrupt, signal_of
from .scheduling import undisturbed
from .tracer import let_late_threads_go, register_buffer, stopped_registers
from .wait import child_signals_held, wait_for_each
from .watchdog import READY, arm, armed

# What letting one thread go takes at most, seconds: the decision to write must leave room for it.
_RELEASE_TIME = 10e-6
# No thread has such a number (proc(5), pid_max).
_NOBODY = 1 << 22


class BudgetExceeded(Exception):
    """The threads could not all be stopped within the budget; all run again and nothing was changed."""

    def __init__(self, stop_us: int, late: list[int]) -> None:
        super().__init__("stopped for %d us, late: %s" % (stop_us, late))
        self.stop_us = stop_us
        self.late = late


class StopWindow:
    """All threads of one process, stopped. `registers` holds NT_PRSTATUS bytes by thread id; `stop_us` is set at the
    end. `real_time_priority`: the highest of any thread, 0 for none.
    """

    def __init__(self, process: Process, budget: float) -> None:
        self.process = process
        self._stats = {tid: process.thread_stat(tid) for tid in process.threads()}
        self._busy = {tid for tid, fields in self._stats.items() if fields[:1] == ["R"]}
        self.real_time_priority = max([real_time_priority(fields) for fields in self._stats.values()], default=0)
        self.registers: dict[int, bytes] = {}
        self.stop_us = 0
        self._budget = budget
        self._signals: dict[int, int] = {}
        self._seized: list[int] = []
        self._ignored: set[int] = set()
        self._late: list[int] = []
        self._buffer = register_buffer()
        self._seizing_since = self._began = self._deadline = 0.0

    def seize(self) -> list[int]:
        """Seize all threads not yet seized; which those are. Raises LivepatchError."""
        new = []
        if not self._seizing_since:
            self._seizing_since = time.monotonic()
            arm(self._budget)  # from here on, a thread that is about to take a signal waits for us
        known = set(self._seized) | self._ignored
        for tid in self.process.threads():
            if tid in known:
                continue
            if seize_thread(self.process, tid, stat=self._stats.get(tid)):
                new.append(tid)
            else:
                self._ignored.add(tid)
        self._seized += new
        return new

    def stop(self, first: list[int]) -> None:
        """Stop these threads, the busy ones last, and all that appear meanwhile. Raises BudgetExceeded."""
        new = sorted(first, key=self._is_asleep, reverse=True)
        arm(self._budget)
        self._began = time.monotonic()
        self._deadline = self._began + self._budget
        while new:
            self._stop_these(new)
            # An exiting thread that goes and a new one that comes leave the count as it was: then only a list tells.
            new = self.seize() if self._ignored or self.process.thread_count() != len(self.registers) else []
        self.check_budget()

    def busy_count(self) -> int:
        """How many of the threads were using a processor when they were last looked at."""
        return len(self._busy)

    def check_budget(self) -> None:
        """Raises BudgetExceeded when there is not time enough left to let every thread go within the budget."""
        if time.monotonic() + len(self.registers) * _RELEASE_TIME > self._deadline:
            raise BudgetExceeded(self._elapsed_us(), self._late)

    def release(self) -> None:
        """Let every thread go, the busy ones first; what it took is in `stop_us`."""
        for tid in sorted(self.registers, key=self._is_asleep):  # a stable sort: the order of stopping is kept
            try:
                detach(tid, self._signals[tid])
            except OSError:
                pass  # killed while stopped
        self.stop_us = self._elapsed_us() if self._began else 0
        let_late_threads_go(self.process, [tid for tid in self._seized if tid not in self._signals])

    def _is_asleep(self, tid: int) -> bool:
        return tid not in self._busy

    def _stop_these(self, threads: list[int]) -> None:
        for tid in threads:
            try:
                interrupt(tid)
            except OSError:
                pass  # it has exited: the wait says so
        for tid, status in wait_for_each(threads, self._deadline):
            self._signals[tid] = 0 if status is None else signal_of(status)
            if self._signals[tid]:
                self._began = self._seizing_since  # this thread may have waited for us since it was seized
            if status is not None and os.WIFSTOPPED(status):
                try:
                    self.registers[tid] = stopped_registers(tid, self._buffer)
                except OSError:
                    pass  # killed while stopped
        self._late = [tid for tid in threads if tid not in self._signals]
        if self._late:
            raise BudgetExceeded(self._elapsed_us(), self._late)

    def _elapsed_us(self) -> int:
        return int((time.monotonic() - self._began) * 1e6)


class _Nobody(Process):
    """As much of a process as a stop needs, without a thread."""

    def __init__(self) -> None:
        self.pid = _NOBODY

    def threads(self) -> list[int]:
        """No thread."""
        return []

    def thread_count(self) -> int:
        """0."""
        return 0


def _rehearse() -> None:
    """Go through all of a stop with a thread that cannot be: what is done for the first time takes longer.

    Of the stop of a program of one thread, that was a third.
    """
    window = StopWindow(_Nobody(), READY)
    window.stop([_NOBODY])
    with contextlib.suppress(OSError):
        stopped_registers(_NOBODY, register_buffer())
    window.registers[_NOBODY] = b""
    window.release()


@contextlib.contextmanager
def stopped(process: Process, budget: float) -> Iterator[StopWindow]:
    """All threads of `process` stopped while the block runs, for at most `budget` seconds before it is entered.

    Inside as_tracer(). Raises BudgetExceeded, and LivepatchError already_traced, not_permitted or process_gone; then
    all threads run again.
    """
    window = StopWindow(process, budget)
    with armed(READY), child_signals_held(), undisturbed(window.busy_count(), window.real_time_priority):
        given_up: list[BudgetExceeded] = []
        try:
            _rehearse()
            window.stop(window.seize())
            if not window.registers:
                raise LivepatchError("process_gone", "process %d has exited" % process.pid)
            yield window
        except BudgetExceeded as exceeded:
            given_up.append(exceeded)
            raise
        finally:
            window.release()
            for failure in given_up:
                failure.stop_us = window.stop_us
