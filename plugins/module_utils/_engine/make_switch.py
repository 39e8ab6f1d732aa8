# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The two ways to make the writes of a switch: while everybody runs, or while everybody stands still."""

from __future__ import annotations

import time
from dataclasses import dataclass

from .._errors import LivepatchError
from .._process.memory import Memory
from .._process.process import Process
from .._ptrace.stop_all_threads import BudgetExceeded, stopped
from .._ptrace.tracer import as_tracer
from .region import Site
from .restore import put_back
from .threads_inside import Inside, anyone_inside, threads_inside

# Between two attempts, seconds: long enough for a thread to leave a function, short beside any timeout.
_PAUSE = 0.02
# After a stop that led to nothing the process runs so many times as long, before it is stopped again.
_RUN_FACTOR = 10
# How long one thread may take to come to a stop before it counts as busy, seconds.
_LOOK = 0.1


@dataclass(frozen=True)
class Write:
    """One change of bytes, of a site: from `old`, which must be at `address`, to `new`."""

    site: Site
    address: int
    old: bytes
    new: bytes


class SwitchFailed(LivepatchError):
    """No attempt until the timeout succeeded; `attempts` is how many there were, `stop_us` the longest of them."""

    def __init__(self, attempts: int, stop_us: int, code: str, message: str) -> None:
        super().__init__(code, message)
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
    quiet: list[tuple[int, int]],
    max_stop: float,
    timeout: float,
) -> tuple[int, int]:
    """Make all writes in one stop of all threads; (longest stop in microseconds, attempts).

    `forbidden`, `quiet`: ranges [start, end) in which nobody may be, the bytes that are overwritten and the code that
    is left; while somebody is in `quiet`, nobody else is kept stopped. `max_stop` and `timeout` are seconds. Raises
    LivepatchError stop_budget_exceeded or function_busy when no attempt until `timeout` succeeded, and as Memory.write
    does; then every byte is as it was and all threads run.
    """
    _check(process.memory, writes, str(process))
    end = time.monotonic() + timeout
    attempts = longest = 0
    while True:
        attempts += 1
        try:
            busy, stop_us = as_tracer(lambda: _attempt(process, writes, forbidden, quiet, max_stop))
            longest = max(longest, stop_us)
            if not busy:
                return longest, attempts
            error = SwitchFailed(
                attempts,
                longest,
                "function_busy",
                "thread %d of %s is, or may come back, inside code that is to be replaced (at %#x), %d attempts"
                % (busy[0].tid, process, busy[0].where, attempts),
            )
        except BudgetExceeded as exceeded:
            stop_us = exceeded.stop_us
            longest = max(longest, stop_us)
            error = SwitchFailed(
                attempts,
                longest,
                "stop_budget_exceeded",
                "%s would have been stopped for more than %g ms (late: thread %s); it runs on unchanged, %d attempts"
                % (process, max_stop * 1e3, ", ".join(map(str, exceeded.late[:4])) or "none", attempts),
            )
        pause = max(_PAUSE, _RUN_FACTOR * stop_us / 1e6)
        if time.monotonic() + pause > end:
            raise error
        time.sleep(pause)


def _attempt(
    process: Process,
    writes: list[Write],
    forbidden: list[tuple[int, int]],
    quiet: list[tuple[int, int]],
    max_stop: float,
) -> tuple[list[Inside], int]:
    """Stop, and write unless somebody is where nobody may be; who is, and how long all stood still, microseconds."""
    inside = anyone_inside(process, quiet, _LOOK) if quiet else None
    if inside is not None:
        return [inside], 0
    mappings = process.maps() if forbidden or quiet else []
    with stopped(process, max_stop) as window:
        busy = []
        if forbidden or quiet:
            busy = threads_inside(process, mappings, window.registers, forbidden + quiet, window.check_budget)
        if not busy:
            _check(process.memory, writes, str(process))
            window.check_budget()
            _write_all(process.memory, writes)
    return busy, window.stop_us


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
