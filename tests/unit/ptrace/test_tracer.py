# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""One thread traces for a whole task, but nobody for longer than as_tracer() lasts, and nothing ends it half done."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Iterator

import pytest

from module_utils._process.process import Process
from module_utils._ptrace.hold_one_thread import held_thread
from module_utils._ptrace.tracer import as_tracer, tracer_kept


@pytest.fixture(name="sleeper")
def fixture_sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A child of this process."""
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        yield sleeper
        sleeper.kill()


def _hold(process: Process, then: int = 0) -> int:
    """Hold a process for a moment, or until `then`, a signal, has ended it; the thread that did."""
    with held_thread(process, process.pid, 1.0) as held:
        assert held is not None
        if then:
            os.kill(process.pid, then)
            while Path("/proc/%d/stat" % process.pid).read_text().rpartition(")")[2].split()[0] not in "ZX":
                time.sleep(0.001)
    return threading.get_native_id()


def _tracer_of(pid: int) -> str:
    (line,) = (line for line in Path("/proc/%d/status" % pid).read_text().splitlines() if line.startswith("TracerPid"))
    return line.split()[1]


def test_one_thread_does_all_of_a_task(sleeper: subprocess.Popen[bytes]) -> None:
    with Process(sleeper.pid) as process, tracer_kept():
        first, second = (as_tracer(lambda: _hold(process)) for _turn in range(2))
        assert first == second != threading.get_native_id()
        assert _tracer_of(sleeper.pid) == "0"
    end = time.monotonic() + 5
    while Path("/proc/self/task/%d" % first).exists() and time.monotonic() < end:
        time.sleep(0.001)
    assert not Path("/proc/self/task/%d" % first).exists()


def test_one_that_was_killed_while_it_was_held_is_its_parents_at_once() -> None:
    """A tracer that lives on keeps the dead from their parents: another thread does the next piece of work."""
    # A grandchild: of our own children we would be the one who waits.
    script = "import subprocess, time\np = subprocess.Popen(['sleep', '60'])\nprint(p.pid, flush=True)\nprint(p.wait())"
    with subprocess.Popen(["python3", "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        with Process(int(parent.stdout.readline())) as process, tracer_kept():
            thread = as_tracer(lambda: _hold(process, signal.SIGKILL))
            assert int(parent.communicate(timeout=10)[0]) == -signal.SIGKILL
            assert as_tracer(threading.get_native_id) != thread
            assert not Path("/proc/self/task/%d" % thread).exists()


def test_what_fails_is_raised_here_and_the_next_piece_of_work_is_done() -> None:
    def fail() -> None:
        raise ValueError("as it must")

    with tracer_kept():
        with pytest.raises(ValueError, match="as it must"):
            as_tracer(fail)
        assert as_tracer(lambda: as_tracer(lambda: 5)) == 5


def test_an_interruption_waits_for_the_end() -> None:
    done = []

    def work() -> None:
        for _turn in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        done.append(True)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            as_tracer(work)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [True]
