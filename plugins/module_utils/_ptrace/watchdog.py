# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that only watches, while a child of it works on programs: when the child is late, it is killed.

Whoever holds threads may itself be stopped, frozen or starved, and then cannot keep its own budget. It may die at any
instant, though: the kernel lets the threads go and they run on. So before the first thread is held a timer is set that
the parent sees (timerfd_create(2)); it is cleared once the last one is let go. In between, watching costs nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import pickle
import select
import signal
import struct
from dataclasses import dataclass
from typing import Any, Callable, Iterator, NoReturn

from .scheduling import HIGHEST, hurry, insist, real_time

# What is granted beyond a budget before a child is killed: its own threads may have to wait for a processor. Seconds.
MARGIN = 0.05
# How long we may take to get ready, holding nobody yet: with a low real-time priority we may not run at all.
READY = 0.2
_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_CLOEXEC = 1, os.O_NONBLOCK, os.O_CLOEXEC
_PR_SET_PDEATHSIG = 1
_LENGTH = struct.Struct("<I")
_libc = ctypes.CDLL(None, use_errno=True)
# The timer of the parent that watches this process, -1 where none does.
_timer = -1


@dataclass(frozen=True)
class Watched:
    """What a child told, in order, and how it ended: `late` when it was killed for that, `died` when killed at all."""

    told: list[Any]
    late: bool
    died: bool
    signal: int


@dataclass(frozen=True)
class _Raised:
    """Told in place of anything else when the work of a child raised an error."""

    error: BaseException


def arm(seconds: float) -> None:
    """Be killed unless this, or disarm(), is called again within `seconds` and the margin; nothing where unwatched."""
    _set_timer(seconds + MARGIN)


def disarm() -> None:
    """No thread is held any more."""
    _set_timer(0.0)


@contextlib.contextmanager
def armed(seconds: float) -> Iterator[None]:
    """Be killed when the block, or what arms again in it, takes longer. Around all that may keep us from running:
    also before the first thread is held, and after the last one.
    """
    arm(seconds)
    try:
        yield
    finally:
        disarm()


def watched(work: Callable[[Callable[[Any], None]], None], insisting: bool = False) -> Watched:
    """Run `work` in a child, which is killed when it is late; `work` is given a function that tells things to us.

    `insisting`: a child was late before; this one gives way to no real-time program.
    Raises what `work` raises; KeyboardInterrupt, when we were interrupted, after `work` has ended.
    """
    timer = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
    if timer < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create: %s" % os.strerror(ctypes.get_errno()))
    incoming, outgoing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if not child:
        if insisting:
            insist()
        _be_the_child(work, outgoing, timer, parent)
    os.close(outgoing)
    try:
        with real_time(HIGHEST - 1):
            return _watch(child, incoming, timer)
    finally:
        os.close(incoming)
        os.close(timer)


def _be_the_child(work: Callable[[Callable[[Any], None]], None], outgoing: int, timer: int, parent: int) -> NoReturn:
    global _timer
    status = 1
    try:
        _timer = timer
        # Ctrl-C reaches us through the parent, once; without a parent nobody would watch us.
        os.setpgid(0, 0)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            try:
                work(lambda thing: _tell(outgoing, thing))
            except BaseException as error:  # raised again by the parent
                _tell(outgoing, _Raised(error))
            status = 0
    finally:
        os._exit(status)


def _tell(outgoing: int, thing: Any) -> None:
    raw = pickle.dumps(thing)
    raw = _LENGTH.pack(len(raw)) + raw
    while raw:
        raw = raw[os.write(outgoing, raw) :]


def _watch(child: int, incoming: int, timer: int) -> Watched:
    told = bytearray()
    late = interrupted = False
    poll = select.poll()
    poll.register(incoming, select.POLLIN)
    poll.register(timer, select.POLLIN)
    while True:
        try:
            ready = [descriptor for descriptor, _event in poll.poll()]
            if timer in ready and _has_expired(timer):
                late = True
                os.kill(child, signal.SIGKILL)
                hurry(child)
            if incoming in ready:
                piece = os.read(incoming, 1 << 16)
                if not piece:
                    break
                told += piece
        except KeyboardInterrupt:
            interrupted = True
            os.kill(child, signal.SIGINT)
    status = os.waitpid(child, 0)[1]
    things = _things(bytes(told))
    for thing in things:
        if isinstance(thing, _Raised):
            raise thing.error
    if interrupted:
        raise KeyboardInterrupt
    died = not os.WIFEXITED(status) or os.WEXITSTATUS(status) != 0
    return Watched(things, late and died, died, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)


def _things(raw: bytes) -> list[Any]:
    """What was told; the last of it may be cut short by the teller's death."""
    found, at = [], 0
    while at + _LENGTH.size <= len(raw):
        end = at + _LENGTH.size + int(_LENGTH.unpack_from(raw, at)[0])
        if end > len(raw):
            break
        found.append(pickle.loads(raw[at + _LENGTH.size : end]))  # noqa: S301 (from our own child)
        at = end
    return found


def _has_expired(timer: int) -> bool:
    """False when it was set anew just now."""
    with contextlib.suppress(BlockingIOError):
        return bool(os.read(timer, 8))
    return False


def _set_timer(seconds: float) -> None:
    if _timer >= 0:
        fraction, whole = math.modf(seconds)
        _libc.timerfd_settime(_timer, 0, struct.pack("<4q", 0, 0, int(whole), int(fraction * 1e9)), None)
