# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeping the processor while threads of a program are stopped.

Beside CPU hogs, a tracer of normal priority needed seconds to stop 1000 threads: each wakes up, takes the processor
and is
queued behind the hogs. With SCHED_FIFO that is tens of ms. Where it is denied, the tool goes on without.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from typing import Iterator

_MCL_CURRENT, _MCL_ONFAULT = 1, 4


@contextlib.contextmanager
def real_time() -> Iterator[None]:
    """Run the block with real-time priority, its memory locked and no garbage collection, as far as allowed."""
    libc = ctypes.CDLL(None)
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    collecting = gc.isenabled()
    gc.disable()
    locked = libc.mlockall(_MCL_CURRENT | _MCL_ONFAULT) == 0
    raised = False
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(os.sched_get_priority_min(os.SCHED_FIFO)))
        raised = True
    try:
        yield
    finally:
        if raised:
            os.sched_setscheduler(0, policy, parameters)
        if locked:
            libc.munlockall()
        if collecting:
            gc.enable()
