# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the turns are that the tool asks for, as the kernel tells it (/proc/PID/sched, se.slice)."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any, Callable

import pytest

from module_utils._ptrace.scheduling import HIGHEST, real_time, undisturbed
from module_utils._ptrace.tracer import as_tracer
from module_utils._ptrace.watchdog import watched

KERNEL = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
LONG = 10.0


def _turn() -> float:
    """Of the calling thread, milliseconds."""
    text = Path(f"/proc/self/task/{threading.get_native_id()}/sched").read_text()
    found = re.search(r"se\.slice\s*:\s*(\d+)", text)
    assert found
    return int(found[1]) / 1e6


@pytest.mark.skipif(KERNEL < (6, 12), reason="Before Linux 6.12 nobody can ask for the length of its turns.")
def test_turns_are_long_but_where_somebody_may_be_held() -> None:
    def work(tell: Callable[[Any], None]) -> None:
        tell(_turn())
        tell(as_tracer(_turn))
        with real_time(HIGHEST):  # above which there is nothing, so that we stay a normal thread
            tell(_turn())
        tell(_turn())
        for held in (undisturbed, real_time):
            with held():
                pass
            tell(_turn())

    usual = _turn()
    assert usual < LONG
    result = watched(work)
    assert result.told == [LONG, LONG, usual, LONG, LONG, LONG]
    assert _turn() == usual


@pytest.mark.skipif(os.geteuid() != 0, reason="a real-time priority needs root")
def test_a_block_within_a_block_keeps_the_priority() -> None:
    """Whoever holds threads with a real-time priority has it to the end."""

    def work(tell: Callable[[Any], None]) -> None:
        with real_time():
            for inner in (real_time, undisturbed):
                with inner():
                    tell(os.sched_getscheduler(0))
                tell(os.sched_getscheduler(0))
        tell(os.sched_getscheduler(0))

    result = watched(work)
    assert result.told == [os.SCHED_FIFO] * 4 + [os.SCHED_OTHER]
