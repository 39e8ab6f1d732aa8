# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that only watches, while children of it work on programs: when one is late, it is killed.

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
import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator, NoReturn, Sequence

from .._process.patience import OUT_OF_PATIENCE
from .scheduling import HIGHEST, giving_way, hurry, insist, real_time

# A child that was killed and still is there after so many seconds cannot die: it waits for a file system in user space
# that has taken its request and does not answer (linux/fs/fuse/dev.c, request_wait_answer), which not even death ends.
# How often it is looked for such ones, milliseconds.
_DYING, _LOOK = 5.0, 500
# What is granted beyond a budget before a child is killed: its own threads may have to wait for a processor. Seconds.
MARGIN = 0.05
# How long we may take to get ready, holding nobody yet: with a low real-time priority we may not run at all.
READY = 0.2
_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_CLOEXEC = 1, os.O_NONBLOCK, os.O_CLOEXEC
_PR_SET_PDEATHSIG = 1
_LENGTH = struct.Struct("<I")
_libc = ctypes.CDLL(None, use_errno=True)
Work = Callable[[Callable[[Any], None]], None]
# Children that could not die when they were let go of.
_stuck: list[int] = []
# The timer of the parent that watches this process, -1 where none does.
_timer = -1


@dataclass(frozen=True)
class Watched:
    """What a child told, in order, and how it ended: `late` when it was killed for that, `died` when killed at all.

    `left`: its number, where it was killed and could not die and is left behind, else 0; it counts as having run out of
    patience (`signal`), and what it holds, it goes on holding.
    """

    told: list[Any]
    late: bool
    died: bool
    signal: int
    left: int = 0


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


def watched(work: Work, insisting: bool = False) -> Watched:
    """Run `work` in a child, which is killed when it is late; `work` is given a function that tells things to us.

    `insisting`: a child was late before; this one gives way to no real-time program.
    Raises what `work` raises; KeyboardInterrupt, when we were interrupted, after `work` has ended.
    """
    return watched_each([work], insisting)[0]


def watched_each(
    works: Sequence[Work],
    insisting: bool = False,
    ended: Callable[[int], None] = lambda _index: None,
) -> list[Watched]:
    """As `watched`, of several at once, each in a child of its own; `ended` is called with the index of one that is
    over, however that came. Raises, after all have ended.
    """
    children: list[_Child] = []
    try:
        with giving_way():
            for work in works:
                children.append(_begin(work, children, insisting))
            with real_time(HIGHEST - 1):
                interrupted = _watch(children, ended)
    finally:
        for child in children:
            child.end()
    results = [child.result() for child in children]
    for thing in (thing for result in results for thing in result.told):
        if isinstance(thing, _Raised):
            raise thing.error
    if interrupted:
        raise KeyboardInterrupt
    return results


class _Child:
    """One child: its process, the pipe through which it tells things, and the timer that says when it is late."""

    def __init__(self, pid: int, incoming: int, timer: int) -> None:
        self.pid = pid
        self.incoming = incoming
        self.timer = timer
        self.ended = False
        self._told = bytearray()
        self._late = False
        self._dying_since = 0.0
        self._stuck = False
        self._status = 0

    def kill_if_late(self) -> None:
        """Kill it when its timer has expired, and see to it that it gets to die."""
        if _has_expired(self.timer):
            self._late = True
            os.kill(self.pid, signal.SIGKILL)
            hurry(self.pid)

    def listen(self) -> None:
        """Take what it tells; at its end it is waited for."""
        piece = os.read(self.incoming, 1 << 16)
        self._told += piece
        if not piece:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self.ended = True

    def give_up_if_stuck(self) -> bool:
        """Wait no longer for one that was killed, by whomever, and cannot die; true then."""
        now = time.monotonic()
        self._dying_since = (self._dying_since or now) if _was_killed(self.pid) else 0.0
        if self._dying_since and now > self._dying_since + _DYING:
            self.ended = self._stuck = True
        return self._stuck

    def end(self) -> None:
        """Let go of it; where it has not ended, because others could not begin, it is killed."""
        if not self.ended:
            os.kill(self.pid, signal.SIGKILL)
        if self._stuck:
            _stuck.append(self.pid)
            self._status = OUT_OF_PATIENCE
        else:
            self._status = os.waitpid(self.pid, 0)[1]
        self.close()

    def result(self) -> Watched:
        """What came of it, once it was let go of."""
        status = self._status
        died = not os.WIFEXITED(status) or os.WEXITSTATUS(status) != 0
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        left = self.pid if self._stuck else 0
        return Watched(_things(bytes(self._told)), self._late and died, died, killed_by, left)

    def close(self) -> None:
        """Let go of its pipe and its timer."""
        os.close(self.incoming)
        os.close(self.timer)


def _begin(work: Work, others: list[_Child], insisting: bool) -> _Child:
    _stuck[:] = [pid for pid in _stuck if os.waitpid(pid, os.WNOHANG) == (0, 0)]
    timer = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
    if timer < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create: %s" % os.strerror(ctypes.get_errno()))
    incoming, outgoing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        for other in others:
            other.close()
        if insisting:
            insist()
        _be_the_child(work, outgoing, timer, parent)
    os.close(outgoing)
    return _Child(pid, incoming, timer)


def _be_the_child(work: Work, outgoing: int, timer: int, parent: int) -> NoReturn:
    global _timer
    status = 1
    try:
        _timer = timer
        # Who reads what the task prints waits until nobody has that open any more: not for us, who may never end.
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in {0, 1, 2} - {outgoing, timer}:
            os.dup2(nothing, descriptor)
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


def _watch(children: list[_Child], ended: Callable[[int], None]) -> bool:
    """Watch until all have ended; True when we were interrupted (Ctrl-C): they are, too."""
    interrupted = False
    poll = select.poll()
    for child in children:
        poll.register(child.incoming, select.POLLIN)
        poll.register(child.timer, select.POLLIN)
    while not all(child.ended for child in children):
        try:
            ready = {descriptor for descriptor, _event in poll.poll(_LOOK)}
            for index, child in enumerate(children):
                if child.timer in ready:
                    child.kill_if_late()
                if child.incoming in ready:
                    child.listen()
                over = child.ended and child.incoming in ready
                if over or (not child.ended and not ready and child.give_up_if_stuck()):
                    poll.unregister(child.incoming)
                    poll.unregister(child.timer)
                    ended(index)
        except KeyboardInterrupt:
            interrupted = True
            for child in children:
                if not child.ended:
                    os.kill(child.pid, signal.SIGINT)
    return interrupted


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


def _was_killed(pid: int) -> bool:
    """True while a signal that nothing survives waits to be taken by some thread of a child of ours."""
    for tid in os.listdir("/proc/%d/task" % pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            with open("/proc/%d/task/%s/status" % (pid, tid), encoding="ascii", errors="replace") as stream:
                pending = [line.split()[1] for line in stream if line.startswith("SigPnd:")]
            if int(pending[0], 16) >> (signal.SIGKILL - 1) & 1:
                return True
    return False


def _has_expired(timer: int) -> bool:
    """False when it was set anew just now."""
    with contextlib.suppress(BlockingIOError):
        return bool(os.read(timer, 8))
    return False


def _set_timer(seconds: float) -> None:
    if _timer >= 0:
        fraction, whole = math.modf(seconds)
        _libc.timerfd_settime(_timer, 0, struct.pack("<4q", 0, 0, int(whole), int(fraction * 1e9)), None)
