# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The two ways to make the writes of a switch: while everybody runs, or while everybody stands still."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Callable

from .._errors import LivepatchError
from .._process.memory import Memory
from .._process.process import Process
from .._ptrace.stop_all_threads import BudgetExceeded, stopped
from .._ptrace.tracer import as_tracer
from .explain_inside import busy
from .find_addresses import addresses
from .memory_inside import MemoryScan
from .region import NAME, Site
from .restore import put_back
from .threads_inside import Inside, anyone_inside, stack_top, threads_inside

# Between two attempts, seconds: long enough for a thread to leave a function, short beside any timeout.
_PAUSE = 0.02
# After a stop that led to nothing the process runs so many times as long, before it is stopped again.
_RUN_FACTOR = 10
# Memory is read again while all threads are stopped where that takes no more than this share of the budget.
_SCAN_SHARE = 0.25
# How long one thread may take to come to a stop before it counts as busy, seconds.
_LOOK = 0.1


@dataclass(frozen=True)
class Write:
    """One change of bytes, of a site: from `old`, which must be at `address`, to `new`."""

    site: Site
    address: int
    old: bytes
    new: bytes


@dataclass(frozen=True)
class CodeLeft:
    """Code in which nobody may be at the moment of a switch, as ranges [start, end): functions, and the branches to
    them, which call nothing.
    """

    functions: list[tuple[int, int]]
    branches: list[tuple[int, int]]


class SwitchFailed(LivepatchError):
    """No attempt until the timeout succeeded; `attempts` is how many there were, `stop_us` the longest of them."""

    def __init__(self, attempts: int, stop_us: int, error: LivepatchError) -> None:
        super().__init__(error.code, "%s; %d attempts" % (error.message, attempts), error.remedy)
        self.attempts = attempts
        self.stop_us = stop_us


def switch_running(process: Process, writes: list[Write]) -> None:
    """Make one-byte writes while all threads run. Raises LivepatchError; then every byte is as it was."""
    _check(process.memory, writes, str(process))
    _write_all(process.memory, writes)


def switch_stopped(
    process: Process,
    writes: list[Write],
    forbidden: list[tuple[int, int]],
    quiet: CodeLeft | None,
    max_stop: float,
    timeout: float,
    prove: Callable[[], Callable[[], None]],
    spares: Callable[[bytes, Inside], bool] | None = None,
) -> tuple[int, int]:
    """Make all writes in one stop of all threads; (longest stop in microseconds, attempts).

    Nobody may be in the ranges [start, end) of `forbidden`, the bytes that are overwritten, or in `quiet`, the code
    that is left, unless that is None; while somebody is in `quiet`, nobody else is kept stopped. `max_stop` and
    `timeout` are seconds. `prove` is called before each attempt, while all run, and what it returns in the stop; both
    raise where the places are not any more what they were. `spares`: asked of the registers of a thread that seems to
    be inside, true where it is known that it is not. Raises LivepatchError stop_budget_exceeded or function_busy when
    no attempt until `timeout` succeeded, and as Memory.write does; then every byte is as it was and all threads run.
    """
    _check(process.memory, writes, str(process))
    end = time.monotonic() + timeout
    attempts = longest = 0
    attempt = _Attempt(process, writes, forbidden, quiet, max_stop, spares)
    while True:
        attempts += 1
        inside = attempt.look() if quiet else None
        check_again = prove()
        stop_us, exceeded = 0, None
        if inside is None:
            try:
                inside, stop_us = as_tracer(lambda: attempt.switch(check_again))  # noqa: B023 (called before the next one)
            except BudgetExceeded as error:
                exceeded, stop_us = error, error.stop_us
            longest = max(longest, stop_us)
            if inside is None and exceeded is None:
                return longest, attempts
        pause = max(_PAUSE, _RUN_FACTOR * stop_us / 1e6)
        if time.monotonic() + pause > end:
            why = busy(process, inside, "code that is left") if inside else _late(process, exceeded, max_stop)
            raise SwitchFailed(attempts, longest, why)
        time.sleep(pause)


def _late(process: Process, exceeded: BudgetExceeded | None, max_stop: float) -> LivepatchError:
    late = ", ".join(map(str, exceeded.late[:4])) if exceeded else ""
    return LivepatchError(
        "stop_budget_exceeded",
        "%s would have been stopped for more than %g ms (late: thread %s); it runs on unchanged"
        % (process, max_stop * 1e3, late or "none"),
    )


class _Attempt:
    """One attempt after the other to find nobody inside, and to write then."""

    def __init__(
        self,
        process: Process,
        writes: list[Write],
        forbidden: list[tuple[int, int]],
        quiet: CodeLeft | None,
        max_stop: float,
        spares: Callable[[bytes, Inside], bool] | None,
    ) -> None:
        self._spares = spares
        self._process = process
        self._writes = writes
        self._quiet = quiet.functions + quiet.branches if quiet else []
        self._nowhere = addresses(tuple(forbidden + self._quiet))
        self._max_stop = max_stop
        self._scan_again = False
        asleep = quiet or CodeLeft([], [])
        self._memory = MemoryScan(process, asleep.functions, asleep.branches, _patches(process) if quiet else [])

    def look(self) -> Inside | None:
        """Who is inside the code that is left, while all run: each thread held by itself, then all of memory."""
        process = self._process
        looks = as_tracer(lambda: anyone_inside(process, self._quiet, _LOOK))
        if looks.inside:
            return looks.inside
        began = time.monotonic()
        inside = self._memory.find(looks.tops)
        self._scan_again = time.monotonic() - began < self._max_stop * _SCAN_SHARE
        return inside

    def switch(self, check: Callable[[], None]) -> tuple[Inside | None, int]:
        """Stop, and write unless somebody is where nobody may be; who is, and how long all stood still, microseconds.

        `check`: called right before writing, and may raise. Inside as_tracer().
        """
        process = self._process
        mappings = process.maps() if self._nowhere else []
        # Once before the stop, too: what is done for the first time takes longer.
        check()
        _check(process.memory, self._writes, str(process))
        with stopped(process, self._max_stop) as window:
            inside = None
            if self._nowhere:
                found = threads_inside(process, mappings, window.registers, self._nowhere, window.check_budget)
                spares = self._spares
                found = [one for one in found if spares is None or not spares(window.registers[one.tid], one)]
                inside = found[0] if found else None
            if inside is None and self._scan_again:
                # A coroutine may have gone to sleep inside since memory was read.
                tops = [stack_top(registers) for registers in window.registers.values()]
                inside = self._memory.find(tops, window.check_budget)
            if inside is None:
                check()
                _check(process.memory, self._writes, str(process))
                window.check_budget()
                _write_all(process.memory, self._writes)
        return inside, window.stop_us


def _patches(process: Process) -> list[tuple[int, int]]:
    """Where patches lie: what their own data leads to, nobody comes back to."""
    return [(mapping.start, mapping.end) for mapping in process.maps() if mapping.path.startswith("/memfd:" + NAME)]


def _write_all(memory: Memory, writes: list[Write]) -> None:
    """Make all writes, or none: what was done is put back when one fails, however it fails.

    Raises LivepatchError memory_mismatch where that fails, too, with another remedy than its usual one.
    """
    done: list[Write] = []
    try:
        for write in writes:
            done.append(write)
            memory.write(write.address, write.new)
    except BaseException as error:
        stuck = put_back(memory, [(write.address, write.new, write.old) for write in done])
        if stuck:
            raise LivepatchError(
                "memory_mismatch",
                "%s; and what was written at %s could not be taken back" % (error, ", ".join(map(hex, stuck))),
                "Run the same task, or its opposite, again; restart the process if that fails, too.",
            ) from error
        raise


def _check(memory: Memory, writes: list[Write], who: str) -> None:
    for write in writes:
        if memory.read(write.address, len(write.old)) != write.old:
            what = "the value of" if write.site.kind == "data" else "the code of"
            raise LivepatchError(
                "object_modified",
                "%s %s at %#x of %s has changed meanwhile" % (what, write.site.name, write.address, who),
            )
