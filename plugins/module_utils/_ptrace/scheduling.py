# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeping the processor while threads of a program are stopped.

Beside CPU hogs, a tracer of normal priority needed seconds to stop 1000 threads: each wakes up, takes the processor
and is queued behind the hogs. With SCHED_FIFO that is tens of ms. Where nobody else wants the processors it is better
without: the threads that are let go cannot run where we keep the processor, and the worst pause of 1000 threads, seen
from inside, was 25 ms with SCHED_FIFO against 19 ms without. Where it is denied, the tool goes on without.

The lowest priority will do, so that real-time programs beside us are not held up, unless the program has real-time
threads of its own: one of them that spins would keep the processor from us for ever while we hold others.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import struct
import time
from typing import Iterator, NamedTuple

_MCL_CURRENT, _MCL_ONFAULT = 1, 4
_PR_SET_TIMERSLACK = 29
_LOOKS, _BETWEEN_LOOKS = 4, 0.001  # seconds
HIGHEST = os.sched_get_priority_max(os.SCHED_FIFO)
_LATENCY = "/dev/cpu_dma_latency"
_libc = ctypes.CDLL(None)
_insisting = False
_SCHED_SETATTR, _SCHED_GETATTR = 314, 315  # on x86-64; the C library has them since 2.41 only
# struct sched_attr as of Linux 3.14: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES = struct.Struct("<IIQiIQQQ")
_RUNTIME = 5


class _Turns(NamedTuple):
    """Attributes of this thread: as it was, with turns of the usual length, and with long ones."""

    before: ctypes.Array[ctypes.c_char]
    usual: ctypes.Array[ctypes.c_char]
    long: ctypes.Array[ctypes.c_char]


# While somebody is given way to, what to ask for.
_turns: _Turns | None = None
# How long we ask to go on in one turn where we hold nobody, nanoseconds: longer than any program that does not ask.
_LONG_TURN = 10_000_000


@contextlib.contextmanager
def undisturbed(own: int = 0, above: int = 0) -> Iterator[None]:
    """Run the block, which stops many threads, so that others delay it as little as can be.

    `own`: how many of these threads use a processor themselves; they are no competition, for they will be stopped.
    `above`: see real_time().
    """
    with real_time(above) if above or _insisting or _contended(own) else _prepared(), _awake():
        yield


@contextlib.contextmanager
def real_time(above: int = 0) -> Iterator[None]:
    """Run the block with real-time priority where that is allowed, and as `undisturbed` otherwise.

    `above`: the real-time priority of who must not keep us from running, 0 where they have none (sched(7)). Above the
    highest there is nothing: there a normal thread is better off, to which the kernel leaves a share.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    with _prepared():
        raised = False
        with contextlib.suppress(PermissionError):
            if above < HIGHEST:
                priority = HIGHEST if _insisting else above + 1
                os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
                raised = True
        try:
            yield
        finally:
            if raised:
                os.sched_setscheduler(0, policy, parameters)


@contextlib.contextmanager
def giving_way() -> Iterator[None]:
    """Run the block, and the children that it begins, so that who wakes up goes first; the blocks above excepted.

    A thread that wakes takes the processor from one that asks for longer turns than it, and mostly not from one that
    asks for the same. It gets no less of a processor for that. (Linux 6.12, sched_attr.sched_runtime of normal threads,
    linux/kernel/sched/fair.c, PREEMPT_SHORT; before, this changes nothing.)
    """
    global _turns
    outer, _turns = _turns, _turns or _turns_from_now_on()
    if _turns:
        _take(_turns.long)
    try:
        yield
    finally:
        if _turns and not outer:
            _take(_turns.before)
        _turns = outer


def insist() -> None:
    """From now on give way to nobody: somebody kept this process from running while it held threads."""
    global _insisting
    _insisting = True


def hurry(pid: int) -> None:
    """Let all threads of a process go first: one that was killed lets go of what it traces only once it runs."""
    with contextlib.suppress(OSError):
        for tid in os.listdir("/proc/%d/task" % pid):
            os.sched_setscheduler(int(tid), os.SCHED_FIFO, os.sched_param(HIGHEST))


@contextlib.contextmanager
def _prepared() -> Iterator[None]:
    """Memory locked, no garbage collection, and sleeps as short as asked for (50 us longer by default)."""
    _lock_memory(os.getpid())
    _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if _turns:
        _take(_turns.usual)
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
        if _turns:
            _take(_turns.long)


@contextlib.contextmanager
def _awake() -> Iterator[None]:
    """Idle processors do not sleep deeply while the block runs, where that is to be had.

    Each thread that is stopped and let go is woken twice, mostly on a processor that has just fallen idle: a stop takes
    a fifth less time with it. (Linux, Documentation/power/pm_qos_interface.rst.)
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            descriptor = os.open(_LATENCY, os.O_WRONLY | os.O_CLOEXEC)
            held.callback(os.close, descriptor)
            os.write(descriptor, bytes(4))  # microseconds that waking up may take
        yield


def _contended(own: int) -> bool:
    """True when others keep every processor busy, at each of some looks: what runs for an instant is no hog."""
    for look in range(_LOOKS):
        time.sleep(_BETWEEN_LOOKS if look else 0)
        if _running() - 1 - own < len(os.sched_getaffinity(0)):
            return False
    return True


def _running() -> int:
    """How many threads run or want to, this one among them (proc_loadavg(5), the fourth field)."""
    with open("/proc/loadavg", encoding="ascii") as stream:
        return int(stream.read().split()[3].partition("/")[0])


@functools.lru_cache(maxsize=None)
def _lock_memory(_process: int) -> None:
    """Keep what this process uses in memory from now on: a page that must be read back would lengthen a stop.

    Once a process: a child does not inherit it (mlock(2)).
    """
    _libc.mlockall(_MCL_CURRENT | _MCL_ONFAULT)


def _turns_from_now_on() -> _Turns | None:
    """What to ask for, for a thread as this one; None where the kernel cannot tell, and for one that is not normal."""
    now = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if _libc.syscall(_SCHED_GETATTR, 0, now, _ATTRIBUTES.size, 0):
        return None
    fields = _ATTRIBUTES.unpack(now.raw)
    if fields[1] != os.SCHED_OTHER:
        return None
    usual, long = (
        ctypes.create_string_buffer(_ATTRIBUTES.pack(*fields[:_RUNTIME], turn, *fields[_RUNTIME + 1 :]))
        for turn in (0, _LONG_TURN)
    )
    return _Turns(now, usual, long)


def _take(attributes: ctypes.Array[ctypes.c_char]) -> None:
    """Take these, of a normal thread; nothing for one that has a real-time priority meanwhile, which it must keep."""
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        _libc.syscall(_SCHED_SETATTR, 0, attributes, 0)
