# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Stopping every thread of a process, for as short as can be, and letting them go as if nothing had happened.

Seizing stops nobody, so it comes first. The stop begins with the first PTRACE_INTERRUPT and ends with the last
PTRACE_DETACH; the system calls between them are made ready before it. Threads that are using a processor are stopped
last and released first; those asleep are released in the order in which they were stopped, so that none of them waits
for the whole of it. Every kind of stop will do: a thread that stops to take a signal takes it when it is released.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Iterator

from .._errors import LivepatchError
from .._process.process import Process, real_time_priority
from . import x86_64 as arch
from .attach import seize_thread
from .ptrace_requests import signal_of, wait_now
from .scheduling import undisturbed
from .stop_calls import StopCalls
from .tracer import let_late_threads_go, register_buffer, stopped_registers
from .wait import child_signals_held, in_turns
from .watchdog import READY, arm, armed

# What letting one thread go takes at most, seconds: the decision to write must leave room for it.
_RELEASE_TIME = 10e-6
# So many threads are looked at before it is seen to it that none of them would show that it was stopped if we died.
_PIECE = 64
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
        self._seized: set[int] = set()
        self._ignored: set[int] = set()
        self._gone: set[int] = set()
        self._buffer = register_buffer()
        # Before anybody is seized: who then takes a signal waits for us.
        self._calls = [StopCalls(sorted(self._stats, key=self._busy.__contains__), len(self._busy))]
        self._seizing_since = self._began = self._deadline = 0.0

    def seize(self) -> list[int]:
        """Seize all threads not yet seized; which those are. Raises LivepatchError."""
        new = []
        if not self._seizing_since:
            self._seizing_since = time.monotonic()
            arm(self._budget)  # from here on, a thread that is about to take a signal waits for us
        known = self._seized | self._ignored
        for tid in self.process.threads():
            if tid in known:
                continue
            if seize_thread(self.process, tid, stat=self._stats.get(tid)):
                self._seized.add(tid)
                new.append(tid)
            else:
                self._ignored.add(tid)
        return new

    def stop(self) -> None:
        """Stop all threads seized, the busy ones last, and all that appear meanwhile. Raises BudgetExceeded."""
        unexpected = [tid for tid in self._seized if tid not in self._stats]
        if unexpected:  # with the others: where the process dies, or becomes another program, all wait for each other
            self._calls = [StopCalls(unexpected + self._calls[0].threads, len(self._busy))]
        arm(self._budget)
        self._began = time.monotonic()
        self._deadline = self._began + self._budget
        for calls in self._calls:
            self._stop_these(calls)
            # An exiting thread that goes and a new one that comes leave the count as it was: then only a list tells.
            if calls is self._calls[-1] and (self._ignored or self.process.thread_count() != len(self.registers)):
                new = self.seize()
                if new:
                    self._calls.append(StopCalls(new))
        self.check_budget()

    def busy_count(self) -> int:
        """How many of the threads were using a processor when they were last looked at."""
        return len(self._busy)

    def check_budget(self) -> None:
        """Raises BudgetExceeded when there is not time enough left to let every thread go within the budget."""
        if time.monotonic() + len(self.registers) * _RELEASE_TIME > self._deadline:
            raise BudgetExceeded(self._elapsed_us(), [])

    def release(self) -> None:
        """Let every thread go, the busy ones first; what it took is in `stop_us`."""
        for calls in self._calls:
            calls.let_go(self._signals, self.registers)
        self.stop_us = self._elapsed_us() if self._began else 0
        for calls in self._calls:
            calls.note_who_went()
        let_late_threads_go(self.process, self._not_seen())

    def _not_seen(self) -> list[int]:
        """The threads seized that have neither stopped nor gone."""
        return [tid for tid in self._seized if tid not in self.registers and tid not in self._gone]

    def _stop_these(self, calls: StopCalls) -> None:
        calls.interrupt()
        if not in_turns(len(calls.threads), lambda first, end: self._take(calls, first, end), self._deadline):
            raise BudgetExceeded(self._elapsed_us(), self._not_seen())

    def _take(self, calls: StopCalls, first: int, end: int) -> int:
        """Take the threads from index `first` up to `end` that have stopped or gone, up to the first that has not; its
        index, or `end`.
        """
        while first < end:
            piece = min(end, first + _PIECE)
            reached = calls.look(first, piece)
            self._take_stopped(calls, first, reached)
            if reached < piece:
                tid = calls.threads[reached]
                if tid in self._seized and (calls.nothing_yet(reached) or not self._take_other(tid)):
                    return reached
                reached += 1
            first = reached
        return end

    def _take_stopped(self, calls: StopCalls, first: int, end: int) -> None:
        """Take threads that have stopped as they were asked to."""
        held, threads = calls.registers(first, end), calls.threads[first:end]
        for index, tid in enumerate(threads):
            self.registers[tid] = held[index * arch.REGISTER_BYTES : (index + 1) * arch.REGISTER_BYTES]
        if arch.may_show_interruption(held):
            for tid in threads:
                if arch.shows_interruption(self.registers[tid]):
                    self._take_registers(tid)

    def _take_other(self, tid: int) -> bool:
        """Take a thread to which something else may have happened; False when nothing has yet."""
        try:
            status = wait_now(tid)
        except ChildProcessError:
            self._gone.add(tid)
            return True
        if status is None:
            return False
        if not os.WIFSTOPPED(status):
            self._gone.add(tid)
            return True
        if signal_of(status):
            self._signals[tid] = signal_of(status)
            self._began = self._seizing_since  # this thread may have waited for us since it was seized
        self._take_registers(tid)
        return True

    def _take_registers(self, tid: int) -> None:
        try:
            self.registers[tid] = stopped_registers(tid, self._buffer)
        except OSError:  # killed while stopped
            self.registers.pop(tid, None)
            self._gone.add(tid)

    def rehearse(self) -> None:
        """Go through all of a stop with a thread that cannot be: what is done for the first time takes longer.

        Of the stop of a program of one thread, that was a third.
        """
        self._seized.add(_NOBODY)
        self.stop()
        self._take_stopped(self._calls[-1], 0, 1)
        self.release()

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
            StopWindow(_Nobody(), READY).rehearse()
            window.seize()
            window.stop()
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
