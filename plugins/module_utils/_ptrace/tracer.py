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
import threading
import time
from typing import Callable, TypeVar

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
    wait_now,
)
from .wait import child_signals_held
from .watchdog import arm

# How long late threads are waited for; after how long not any more those in uninterruptible sleep; between two looks.
_PATIENCE, _ASLEEP, _LOOK = 2.0, 0.01, 0.001
# A thread that stops late is let go at the next look; who takes longer than this to look is killed, seconds.
_HOLD = 0.05
_Result = TypeVar("_Result")
_this_thread = threading.local()


def as_tracer(work: Callable[[], _Result]) -> _Result:
    """What `work` returns or raises, called in a thread of its own, after whose end it traces nothing any more.

    Within another as_tracer() that one's thread will do: to make one takes half as long as to hold a thread. An
    interruption (Ctrl-C) is raised after `work` has ended: it never ends half done.
    """
    if getattr(_this_thread, "traces", False):
        return work()
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        _this_thread.traces = True
        try:
            results.append(work())
        except BaseException as error:  # raised again in the thread that asked
            errors.append(error)

    # Held in both threads: a signal to the process must not be taken by the one that does not wait for it.
    with child_signals_held():
        thread = threading.Thread(target=run, name="tracer")
        thread.start()
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt as interruption:
                errors.append(interruption)
    if errors:
        raise errors[0]
    return results[0]


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
