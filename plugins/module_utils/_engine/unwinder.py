# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a patch's unwind table known to the process's unwinder, and unknown again.

libgcc keeps the tables that were registered in two linked lists, under a lock (libgcc, unwind-dw2-fde.c). The program
itself registers ours, by a thread that is made to call code of the patch. This is the one place where code of the
program is run for us, and it is proven beforehand that it cannot wait for its own thread: the lock is held in a few
functions only, the thread is in none of them, and until GCC 13 registering takes no other lock and allocates nothing.
Taking the table out would free memory, which a stopped thread must not do. So that is done from outside: in one stop of
all threads, when none of them is in these functions, our entry is taken out of the list with one word.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Iterator

from .._elf.dynamic import Definition, DynamicTable
from .._errors import LivepatchError
from .._patch.manifest import Reference
from .._patch.unwinding import (
    DONE_AT,
    FLAGS_AT,
    IS_SORTED,
    NEXT_AT,
    RECORD,
    REGISTER,
    REGISTER_FUNCTION,
    SORTED_AT,
    STARTED_AT,
    TABLE,
)
from .._process.link_map import linked_objects
from .._process.objects import mapped_objects
from .._process.process import Process
from .._ptrace import x86_64 as arch
from .._ptrace.hold_one_thread import HeldThread
from .._ptrace.injected_call import injected_calls
from .._ptrace.tracer import as_tracer
from .find_addresses import addresses
from .image import Image
from .make_switch import Write, switch_stopped
from .region import Region, Site
from .threads_inside import Inside, anyone_inside, threads_inside

# What holds the lock on the lists; libgcc exports them all. Whatever they call returns into them.
_LOCKING = (
    "_Unwind_Find_FDE",
    "__register_frame_info_bases",
    "__register_frame_info",
    "__register_frame_info_table_bases",
    "__register_frame_info_table",
    "__register_frame",
    "__register_frame_table",
    "__deregister_frame_info_bases",
    "__deregister_frame_info",
    "__deregister_frame",
)
_LIBRARY, _FIRST_UNKNOWN = "libgcc_s.so", 13
# As many tables as any program may have registered; the budget for one stop and the pause between looks, seconds.
_MOST_TABLES, _STOP, _PAUSE = 4096, 0.1, 0.01
_LOOK = 0.1


@dataclass(frozen=True)
class _Unwinder:
    """libgcc in one process: where it may hold its lock, and where its variables are, as ranges [start, end)."""

    locking: list[tuple[int, int]]
    variables: list[tuple[int, int]]


def frames_of(image: Image, base: int, addresses: dict[str, int], references: tuple[Reference, ...]) -> tuple[int, ...]:
    """What a region notes of its unwind table: where the code that registers it, the table, the record and the
    unwinder's function are; empty for a patch without a table.
    """
    function = [addresses[one.symbol] for one in references if one.name == REGISTER_FUNCTION]
    if not image.has_symbol(REGISTER) or not function:
        return ()
    return (*(base + image.symbol(name) for name in (REGISTER, TABLE, RECORD)), function[0])


def check_unwinder(process: Process, references: tuple[Reference, ...], addresses: dict[str, int]) -> None:
    """The process's unwinder must be one that is known, where a patch needs it. Raises LivepatchError."""
    for one in references:
        if one.name == REGISTER_FUNCTION:
            _unwinder(process, addresses[one.symbol])


def register_frames(process: Process, region: Region) -> None:
    """Make the table known, unless it is. Raises LivepatchError function_busy, patch_unsupported and what holding a
    thread raises.
    """
    register, _table, record, function = region.frames
    if _is_registered(process, record):
        return
    unwinder = _unwinder(process, function)
    if process.memory.read(record + STARTED_AT, 8) != bytes(8):
        # A tool that died may have left a thread on its way there.
        if as_tracer(lambda: anyone_inside(process, region.code_ranges(), _LOOK, _STOP)).inside:
            raise _busy(process, region)
        if _is_registered(process, record):
            return

    locking = addresses(tuple(unwinder.locking))

    def may_run(thread: HeldThread) -> bool:
        held = {thread.tid: thread.registers}
        found = threads_inside(process, process.maps(), held, locking, lambda: None)
        return all(_only_was_there(thread.registers, one) for one in found)

    def run() -> None:
        with injected_calls(process, may_run) as calls:
            process.memory.write(record + STARTED_AT, (1).to_bytes(8, "little"))
            calls.run(register)

    as_tracer(run)
    if not _is_registered(process, record):
        raise _busy(process, region)


def registered_places(process: Process, region: Region) -> list[tuple[int, int]]:
    """The words [start, end) of the process that lead into a region only because its table is registered."""
    if not region.frames or not _is_registered(process, region.frames[2]):
        return []
    link = _link(process, region)
    return [(start, start + size) for start, size in [(link, 8), *_sorted_list(process, region)] if start]


def forget_frames(process: Process, region: Region, end: float) -> int:
    """Make the table unknown again; how long all threads were stopped, microseconds.

    `end`: until when it is tried (time.monotonic seconds). Raises LivepatchError function_busy, stop_budget_exceeded,
    object_modified; then it is registered as before.
    """
    if not region.frames or not _is_registered(process, region.frames[2]):
        return 0
    memory, record = process.memory, region.frames[2]
    site = Site(region.id, "data", record, b"", b"")
    while True:
        link = _link(process, region)
        places = [(record + DONE_AT, 8), (record + STARTED_AT, 8), *_sorted_list(process, region)]
        if link:
            following = memory.read(record + NEXT_AT, 8)
            writes = [Write(site, link, record.to_bytes(8, "little"), following)]
        elif _is_going(process, region):
            writes = []
        else:
            raise LivepatchError("object_modified", "the unwinder of %s does not list patch %s" % (process, region.id))
        # Noted, so that whoever comes after our death between two of these writes knows why it is not listed.
        memory.write(record + DONE_AT, (2).to_bytes(8, "little"))
        writes += [Write(site, start, memory.read(start, size), bytes(size)) for start, size in places]
        try:
            locking = _unwinder(process, region.frames[3]).locking
            left = max(end - time.monotonic(), 0.0)
            # libgcc is found anew each time, and nobody closes it.
            stop_us, _attempts = switch_stopped(
                process, writes, locking, None, _STOP, left, lambda: lambda: None, _only_was_there
            )
            return stop_us
        except LivepatchError as error:
            # An exception that passed meanwhile moves our entry from one list to the other, once.
            if error.code != "object_modified" or time.monotonic() > end:
                raise
            time.sleep(_PAUSE)


def _only_was_there(registers: bytes, found: Inside) -> bool:
    """True for a thread on whose stack an address in a locking function is left over from a call that has returned.

    What runs under the lock, the unwinder itself and the memory that it asks for, waits for nothing from outside. So a
    thread that slept until something would come from there is not in it, unless a signal has interrupted that.
    """
    whole = bool(found.where)
    frames = [pointer for _start, piece in found.stack for pointer in arch.interrupted_stacks(piece)]
    return whole and not frames and arch.slept_for_others(registers)


def _is_registered(process: Process, record: int) -> bool:
    return process.memory.read(record + DONE_AT, 8) != bytes(8)


def _is_going(process: Process, region: Region) -> bool:
    """True when a tool died while it took out the table, and did take it out: nobody lists it, look after look."""
    record = region.frames[2]
    if process.memory.read(record + DONE_AT, 1) != b"\2":
        return False
    for _look in range(5):
        time.sleep(_PAUSE)
        if _link(process, region):
            return False
    return True


def _link(process: Process, region: Region) -> int:
    """The address of the word that leads to our record: in libgcc, or in the record that is listed before it; or 0."""
    memory, record = process.memory, region.frames[2]
    wanted = record.to_bytes(8, "little")
    for start, end in _unwinder(process, region.frames[3]).variables:
        raw = memory.read_some(start, end - start)
        words = [raw[at : at + 8] for at in range(0, len(raw) - 7, 8)]
        for number, word in enumerate(words):
            at = start + 8 * number
            for _table in range(_MOST_TABLES):
                if word == wanted:
                    return at
                at = int.from_bytes(word, "little") + NEXT_AT
                word = memory.read_some(at, 8)
                if len(word) < 8 or word == bytes(8):
                    break
    return 0


def _sorted_list(process: Process, region: Region) -> list[tuple[int, int]]:
    """(address, size) of the list that the unwinder made of our table when the first exception passed, if it did."""
    _register, table, record, _function = region.frames
    memory = process.memory
    if not memory.read(record + FLAGS_AT, 1)[0] & IS_SORTED:
        return []
    start = int.from_bytes(memory.read(record + SORTED_AT, 8), "little")
    head = memory.read_some(start, 16)
    count = int.from_bytes(head[8:], "little")
    if head[:8] != table.to_bytes(8, "little") or count > _MOST_TABLES:
        return []
    return [(start, 16 + 8 * count)]


def _unwinder(process: Process, function: int) -> _Unwinder:
    """libgcc, by its function for registering. Raises LivepatchError patch_unsupported where it is not a known one."""
    tables = (one.table for namespace in linked_objects(process) for one in namespace)
    for table in tables:
        found = table.look_up(REGISTER_FUNCTION)
        if found is None or found.address != function:
            continue
        if table.soname().startswith(_LIBRARY) and not _is_later(table):
            locking = [(one.address, one.address + one.size) for one in _functions(table)]
            return _Unwinder(locking, _variables(process, function))
        break
    raise LivepatchError(
        "patch_unsupported",
        "the unwinder of %s, which must be told of code through which exceptions pass, is none of libgcc up to GCC 12"
        % process,
        "Restart the process into the fixed version.",
    )


def _functions(table: DynamicTable) -> Iterator[Definition]:
    for name in _LOCKING:
        found = table.look_up(name)
        if found is not None:
            yield found


def _is_later(table: DynamicTable) -> bool:
    """True for a libgcc whose lists are no lists any more; each GCC names new functions by its version."""
    for _number, name in table.versions():
        major = name.partition("GCC_")[2].partition(".")[0]
        if major.isdigit() and int(major) >= _FIRST_UNKNOWN:
            return True
    return False


def _variables(process: Process, function: int) -> list[tuple[int, int]]:
    mappings = process.maps()
    for one in mapped_objects(process.memory, mappings):
        if one.start <= function < one.end:
            return [
                (max(part.start, one.start), min(part.end, one.end))
                for part in mappings
                if part.is_writable() and part.start < one.end and one.start < part.end
            ]
    return []


def _busy(process: Process, region: Region) -> LivepatchError:
    return LivepatchError(
        "function_busy",
        "%s has not yet told its unwinder of patch %s: a thread is at it" % (process, region.id),
        "Run the task again.",
    )
