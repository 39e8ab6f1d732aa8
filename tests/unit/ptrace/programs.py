# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of the ptrace room share: stopping all of a program, a call in each thread, signals all the time."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
import time
from typing import Callable

from module_utils._process.process import Process
from module_utils._ptrace import x86_64 as arch
from module_utils._ptrace.gadgets import find_gadgets
from module_utils._ptrace.hold_one_thread import held_thread
from module_utils._ptrace.injected_call import InjectedCalls, frame_place
from module_utils._ptrace.stop_all_threads import stopped
from module_utils._ptrace.tracer import as_tracer


def stop_all(process: Process, budget: float = 5.0) -> int:
    """Stop all threads once and let them go; how many there were."""

    def once() -> int:
        with stopped(process, budget) as window:
            return len(window.registers)

    return as_tracer(once)


def call_in_each_thread(process: Process, meanwhile: Callable[[int], object] = lambda tid: None) -> int:
    """Make every thread close a descriptor that does not exist; how many threads did.

    `meanwhile` is called with the thread's id while it is held, between two calls.
    """

    def once() -> int:
        mappings = process.maps()
        gadgets = find_gadgets(process, mappings)
        size = arch.own_xstate_size()
        done = 0
        for tid in process.threads():
            with held_thread(process, tid, timeout=2.0, plainly=True) as thread:
                assert thread is not None
                place = frame_place(mappings, arch.stack_pointer(thread.registers), size)
                assert place
                calls = InjectedCalls(thread, gadgets, place, size)
                assert calls.call("close", 1 << 20) == -errno.EBADF
                meanwhile(tid)
                assert calls.call("close", 1 << 20) == -errno.EBADF
                calls.finish()
                done += 1
        return done

    return as_tracer(once)


def wait_for_threads(pid: int, count: int, state: str = "S") -> None:
    """Until a process has `count` threads and all of them have this state letter."""
    folder = "/proc/%d/task" % pid
    letters: list[str] = []
    for _turn in range(1000):
        letters = []
        for tid in os.listdir(folder):
            with open("%s/%s/stat" % (folder, tid)) as stream:
                letters.append(stream.read().rpartition(")")[2].split()[0])
        if letters == [state] * count:
            return
        time.sleep(0.005)
    raise AssertionError("threads of %d: %s" % (pid, letters))


class _Value(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("pointer", ctypes.c_void_p)]


class Sender:
    """Sends queued signals to a process as fast as they go, until told to stop; counts what was accepted.

    The signals are `numbers` ones from SIGRTMIN on, in turn; their values go from 1 to 1000 and begin again.
    """

    def __init__(self, pid: int, numbers: int = 4) -> None:
        self._pid = pid
        self._numbers = numbers
        self._end = threading.Event()
        self._libc = ctypes.CDLL(None)
        self._libc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, _Value]
        self.count = self.sum = 0
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._end.wait(0.0002):
            value = _Value(number=self.count % 1000 + 1)
            if self._libc.sigqueue(self._pid, signal.SIGRTMIN + self.count % self._numbers, value) == 0:
                self.count += 1
                self.sum += value.number
