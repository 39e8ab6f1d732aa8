# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for a tracee with a deadline: waitpid(2) has none."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import time
from typing import Callable, Iterator

from .ptrace_requests import wait_now

# A stop of a tracee sends its tracer SIGCHLD. Signals of one number are merged, so never sleep longer than this,
# seconds.
_LONGEST_SLEEP = 0.001
# Between two rounds of asking many threads, seconds; doubled from the one to the other.
_SHORTEST_SLEEP, _LONGEST_PAUSE = 10e-6, 200e-6
# A few threads come to their stops sooner than any sleep would end; so long it is not slept at all, seconds.
_AT_ONCE = 50e-6
# The same for one thread: nine of ten waits end within it, and a call that a held thread makes takes 2/3 of the time.
# Not on a single processor, where it could not run meanwhile.
_ONE_AT_ONCE = 20e-6 if (os.cpu_count() or 1) > 1 else 0.0


@contextlib.contextmanager
def child_signals_held() -> Iterator[None]:
    """Block SIGCHLD in this thread, so that it can be waited for."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wait_until(tid: int, deadline: float) -> int | None:
    """The next wait status of a tracee, None when it has not changed state by `deadline` (time.monotonic seconds).

    Inside child_signals_held(). Raises ChildProcessError when it is gone.
    """
    sleepless_until = time.monotonic() + _ONE_AT_ONCE
    while True:
        status = wait_now(tid)
        if status is not None:
            return status
        now = time.monotonic()
        left = deadline - now
        if left <= 0:
            return None
        if now < sleepless_until:
            continue
        signal.sigtimedwait({signal.SIGCHLD}, min(left, _LONGEST_SLEEP))


def in_turns(count: int, take: Callable[[int, int], int], deadline: float) -> bool:
    """Call `take` until it has got through all of the indices below `count`, each once; False when that is not so by
    `deadline` (time.monotonic seconds).

    `take` is given the first index and the end of those that are left in one piece; it returns the first that it could
    not take yet, or the end. Asked in turns, with a short sleep in between, and not at every SIGCHLD: 1000 threads that
    come to their stops would wake us 1000 times, which took half as long again as the stops themselves.
    """
    left = collections.deque([(0, count)])
    pause, began = _SHORTEST_SLEEP, time.monotonic()
    while left:
        first, end = left.popleft()
        reached = take(first, end)
        if reached == end:
            continue
        # Asked again after the others: of a process that is dying, the leader ends when all others were seen.
        if reached + 1 < end:
            left.append((reached + 1, end))
        left.append((reached, reached + 1))
        if reached > first:
            continue
        now = time.monotonic()
        if now >= deadline:
            return False
        if now < began + _AT_ONCE:
            os.sched_yield()
        else:
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
    return True
