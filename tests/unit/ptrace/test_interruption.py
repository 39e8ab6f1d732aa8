# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A program cannot tell that it was stopped: no blocking call returns early, and none returns EINTR."""

from __future__ import annotations

import ctypes
import errno
import signal
import time
from pathlib import Path

import pytest
from blocking_calls import CALLS, PROGRAM
from patching import Running, compile_program
from programs import call_in_each_thread, stop_all, wait_for_threads

from module_utils._process.process import Process
from module_utils._ptrace import injected_call
from module_utils._ptrace import x86_64 as arch
from module_utils._ptrace.stop_all_threads import stopped
from module_utils._ptrace.tracer import as_tracer

NAMES = {kind: {name for other, name in CALLS if other == kind} for kind, _name in CALLS}
# The threads of the program: one a call, and the one that answers.
THREADS = len(CALLS) + 1
_TGKILL = 234


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_program(tmp_path_factory.mktemp("calls"), "calls", PROGRAM, "-lrt", "-w")


def _returned(running: Running) -> dict[str, tuple[int, int, int]]:
    """What has returned: errno of the last time, how often, and after how many milliseconds it did first."""
    found = {}
    for part in running.ask("?").split("|")[:-1]:
        name, *numbers = part.split(":")
        found[name] = (int(numbers[0]), int(numbers[1]), int(numbers[2]))
    return found


def test_no_call_returns_early(program: Path, tmp_path: Path) -> None:
    """50 stops of all, and ten calls made in every thread: every blocking call goes on as if nothing had been."""
    with Running(program, str(tmp_path), "60") as running, Process(running.pid) as process:
        wait_for_threads(running.pid, THREADS)
        for _turn in range(50):
            assert stop_all(process) == THREADS
        assert _returned(running) == {}
        for _turn in range(10):
            assert call_in_each_thread(process) == THREADS
        assert _returned(running) == {}
        assert running.ended() == 0


def test_who_keeps_count_of_its_time_is_asked_first(program: Path, tmp_path: Path) -> None:
    """Threads that wait in calls that go on with the time that is left come before all others."""
    with Running(program, str(tmp_path), "60") as running, Process(running.pid) as process:
        wait_for_threads(running.pid, THREADS)
        asked = injected_call._callers(process, process.maps())
        numbers = [int(process.read_text("task/%d/syscall" % tid).split()[0]) for tid in asked]
        first = [number in arch.TAKEN_UP_AGAIN for number in numbers]
        assert first == sorted(first, reverse=True)
        assert 10 < sum(first) < len(first)


def test_times_go_on(program: Path, tmp_path: Path) -> None:
    """Stopped again and again for longer than they wait, calls end by their time, where the kernel keeps count of it.

    The others end by theirs once the stops have ended. None ends early, and none otherwise than it would have.
    """
    with Running(program, str(tmp_path), "1") as running:
        alone = _until_returned(running, NAMES["kept"] | NAMES["anew"])
    with Running(program, str(tmp_path), "1") as running, Process(running.pid) as process:
        returned: dict[str, tuple[int, int, int]] = {}
        last, longest = time.monotonic(), 0.0
        for turn in range(2000):
            (call_in_each_thread if turn % 8 == 7 else stop_all)(process)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            if turn % 8 == 0:
                returned = _returned(running)
                if set(returned) >= NAMES["kept"]:
                    break
        assert NAMES["kept"] - set(returned) == set()
        # Only a gap as long as their time could have let one of the others end.
        assert longest > 0.9 or not NAMES["anew"] & set(returned)
        ended = _until_returned(running, NAMES["kept"] | NAMES["anew"])
    expected = {name: found[0] for name, found in alone.items()}
    assert expected["connect by TCP, SO_SNDTIMEO"] == errno.EINPROGRESS
    expected["connect by TCP, SO_SNDTIMEO"] = errno.EALREADY  # as for everyone who asks again (connect(2))
    assert {name: found[0] for name, found in ended.items()} == expected
    assert {name: found[2] for name, found in ended.items() if found[2] < 999} == {}


def _until_returned(running: Running, names: set[str]) -> dict[str, tuple[int, int, int]]:
    for _turn in range(1000):
        returned = _returned(running)
        if set(returned) >= names:
            return returned
        time.sleep(0.02)
    raise AssertionError(names - set(returned))


def test_a_signal_still_interrupts(program: Path, tmp_path: Path) -> None:
    """A signal with a handler ends the same calls with EINTR whether we are there or not: during a stop, and a call.

    Also where the signal is let in for the time of the call only, as pselect does.
    """
    ended = {}
    for situation in ("alone", "stopped", "calling"):
        with Running(program, str(tmp_path), "60") as running, Process(running.pid) as process:
            wait_for_threads(running.pid, THREADS)
            threads = sorted(process.threads())[1:]
            if situation == "alone":
                _signal_all(running.pid, threads)
            elif situation == "stopped":
                _signal_while_stopped(process, threads)
            else:
                call_in_each_thread(process, lambda tid: _signal_all(process.pid, [tid] * (tid != process.pid)))
            ended[situation] = _until_same(running)
    interrupted = {
        name for name, (reason, count, _took) in ended["alone"].items() if (reason, count) == (errno.EINTR, 1)
    }
    assert interrupted >= NAMES["held"]
    assert len(interrupted) > 70
    for situation in ("stopped", "calling"):
        assert {name: found[:2] for name, found in ended[situation].items()} == {
            name: found[:2] for name, found in ended["alone"].items()
        }


def _until_same(running: Running) -> dict[str, tuple[int, int, int]]:
    """What has returned once no more comes for a while."""
    before: dict[str, tuple[int, int, int]] = {}
    for _turn in range(40):
        time.sleep(0.3)
        wait_for_threads(running.pid, THREADS)
        now = _returned(running)
        if now == before and now:
            return now
        before = now
    raise AssertionError(before)


def _signal_all(pid: int, threads: list[int]) -> None:
    for tid in threads:
        assert ctypes.CDLL(None).syscall(_TGKILL, pid, tid, signal.SIGUSR1) == 0


def _signal_while_stopped(process: Process, threads: list[int]) -> None:
    def once() -> None:
        with stopped(process, 5.0):
            _signal_all(process.pid, threads)

    as_tracer(once)
