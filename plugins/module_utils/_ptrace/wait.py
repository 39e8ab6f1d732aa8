# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Waiting for a tracee with a deadline: waitpid(2) has none."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import Iterator

from .requests import wait_now

# A stop of a tracee sends its tracer SIGCHLD. Signals of one number are merged, so never sleep longer than this,
# seconds.
_LONGEST_SLEEP = 0.001


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
    while True:
        status = wait_now(tid)
        if status is not None:
            return status
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        signal.sigtimedwait({signal.SIGCHLD}, min(left, _LONGEST_SLEEP))
