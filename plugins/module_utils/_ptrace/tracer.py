# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Being a tracer for a while: in a thread of its own, and for threads that cannot be stopped just now.

Only a stopped thread can be detached, and one in uninterruptible sleep (a parent in vfork, a hanging file system)
does not stop. But a tracer is a thread, not a process: when it ends, the kernel lets go of all that it still traces
(ptrace(2)).
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from typing import Callable, Iterator, TypeVar

from .._process.process import Process
from . import x86_64 as arch
from .attach import thread_state
from .ptrace_requests import (
    NT_PRSTATUS,
    RegisterBuffer,
    detach,
    get_register_set,
    interrupt,
    set_register_set,
    signal_of,
    traces_any,
    wait_now,
)
from .wait import child_signals_held
from .watchdog import arm

# How long late threads are waited for; after how long not any more those in uninterruptible sleep; between two looks.
_PATIENCE, _ASLEEP, _LOOK = 2.0, 0.01, 0.001
# How long the kernel may take at most to end a thread, seconds.
_ENDING = 1.0
# A thread that stops late is let go at the next look; who takes longer than this to look is killed, seconds.
_HOLD = 0.05
_Result = TypeVar("_Result")
_this_thread = threading.local()


def as_tracer(work: Callable[[], _Result]) -> _Result:
    """What `work` returns or raises, called in a thread of its own, which traces nobody any more when this returns.

    Within another as_tracer() that one's thread will do. An interruption (Ctrl-C) is raised after `work` has ended: it
    never ends half done.
    """
    if getattr(_this_thread, "traces", False):
        return work()
    results: list[_Result] = []
    # Held in both threads: a signal to the process must not be taken by the one that does not wait for it.
    with child_signals_held():
        kept: list[_Tracer] | None = getattr(_this_thread, "kept", None)
        tracer = kept.pop() if kept else _Tracer()
        errors = tracer.do(lambda: results.append(work()))
        if kept is None or tracer.is_over:
            errors += tracer.end()
        else:
            kept.append(tracer)
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def tracer_kept() -> Iterator[None]:
    """While the block runs, one thread does the work of each as_tracer() of this one, as long as it lets go of all.

    For work on many processes: where memory is locked, to begin a thread and end it takes 0.4 ms, all of loading 3.
    """
    kept: list[_Tracer] = []
    _this_thread.kept = kept
    try:
        yield
    finally:
        del _this_thread.kept
        for tracer in kept:
            tracer.end()


class _Tracer:
    """A thread that does one piece of work after the other; `is_over`: it still traces somebody, and ends for it."""

    is_over = False

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._number = 0
        self._thread = threading.Thread(target=self._run, name="tracer", daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], None]) -> list[BaseException]:
        """Have the work done, to its end whatever comes meanwhile; what it raised, and what came."""
        errors: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                work()
            except BaseException as error:  # raised again in the thread that asked
                errors.append(error)
            self.is_over = traces_any()
            done.set()

        self._asked.put(run)
        interruptions = _interruptions_until(done.wait)
        return errors + interruptions

    def end(self) -> list[BaseException]:
        """End the thread, and so all tracing of it; what came meanwhile."""
        self._asked.put(None)
        came = _interruptions_until(self._thread.join)
        # Python is done with a thread a little before the kernel is, which only then lets go of what it traces.
        end = time.monotonic() + _ENDING
        while self.is_over and time.monotonic() < end and os.path.exists("/proc/self/task/%d" % self._number):
            time.sleep(_LOOK)
        return came

    def _run(self) -> None:
        self._number = threading.get_native_id()
        _this_thread.traces = True
        while True:
            work = self._asked.get()
            if work is None:
                return
            work()


def _interruptions_until(wait: Callable[[], object]) -> list[BaseException]:
    """Wait, again after each interruption; which those were. `wait` must return at once where it has done so before."""
    interruptions: list[BaseException] = []
    while True:
        try:
            wait()
            return interruptions
        except KeyboardInterrupt as interruption:
            interruptions.append(interruption)


def register_buffer() -> RegisterBuffer:
    """Room for what stopped_registers() reads."""
    return RegisterBuffer(arch.REGISTER_BYTES)


def stopped_registers(tid: int, buffer: RegisterBuffer) -> bytes:
    """The NT_PRSTATUS bytes of a stopped thread, which from now on goes on well however we let it go, or die.

    A call that the stop alone would end with EINTR is set to be started again. Raises OSError ESRCH.
    """
    registers = get_register_set(tid, NT_PRSTATUS, buffer)
    if arch.shows_interruption(registers):
        registers = arch.hide_interruption(registers)
        set_register_set(tid, NT_PRSTATUS, registers)
    return registers


def let_late_threads_go(process: Process, late: list[int]) -> None:
    """Let threads go that have not come to a stop in time: each once it has, or by the end of this tracer."""
    left, buffer = list(late), register_buffer()
    for tid in left:
        with contextlib.suppress(OSError):  # it has exited
            interrupt(tid)
    began = now = time.monotonic()
    while left and now < began + _PATIENCE:
        arm(_HOLD)
        left = [tid for tid in left if not _went(tid, buffer)]
        now = time.monotonic()
        if now > began + _ASLEEP:
            left = [tid for tid in left if thread_state(process, tid) != "D"]
        if left:
            time.sleep(_LOOK)


def _went(tid: int, buffer: RegisterBuffer) -> bool:
    """True when a thread was found stopped and let go, or is gone."""
    try:
        status = wait_now(tid)
        if status is None:
            return False
        if os.WIFSTOPPED(status):
            stopped_registers(tid, buffer)
            detach(tid, signal_of(status))
    except OSError:
        pass
    return True
