# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Carrying a region into a process, and out again: its memfd, its mappings. The content never passes through the
program.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from typing import Callable

from .._errors import LivepatchError
from .._process.process import Process
from .._ptrace.injected_call import InjectedCalls, injected_calls
from .._ptrace.tracer import as_tracer
from .region import NAME, file_name

_MAP_PRIVATE, _MAP_FIXED_NOREPLACE = 2, 0x100000
_MFD_CLOEXEC, _MFD_NOEXEC_SEAL, _MFD_EXEC = 1, 8, 0x10
# One hold of the thread is kept well under a millisecond: this many calls, then it runs on before the next hold.
_CALLS_A_HOLD = 6
# So many bytes are written to the file within the first hold, 20 us for the most, where a hold more takes 250; a larger
# patch is written while the thread runs on.
_MOST_WHILE_HELD = 1 << 16


def map_region(process: Process, patch_id: str, parts: list[tuple[tuple[int, int, int], bytes]]) -> int:
    """Map parts ((start, size, PROT_ bits), content) from one new memfd; the longest hold of a thread, microseconds.

    Raises LivepatchError no_room_near_object, not_permitted, function_busy, process_gone, already_traced; whatever was
    mapped is unmapped then.
    """
    return as_tracer(lambda: _map_region(process, patch_id, parts))


def unmap(process: Process, parts: list[tuple[int, int]], descriptors: tuple[int, ...] = ()) -> int:
    """Unmap parts (start, size), the last one first, and close descriptors; the longest hold of a thread, microseconds.

    Parts that follow one another go in one call. Raises LivepatchError.
    """
    joined: list[tuple[int, int]] = []
    for start, size in parts:
        if joined and sum(joined[-1]) == start:
            joined[-1] = joined[-1][0], joined[-1][1] + size
        else:
            joined.append((start, size))
    wanted = [("munmap", start, size) for start, size in reversed(joined)]
    wanted += [("close", descriptor, 0) for descriptor in descriptors]
    return as_tracer(lambda: _call_all(process, wanted))


def _call_all(process: Process, wanted: list[tuple[str, int, int]]) -> int:
    held = [0]
    for some in range(0, len(wanted), _CALLS_A_HOLD):
        with injected_calls(process) as calls:
            for one in wanted[some : some + _CALLS_A_HOLD]:
                _make(process, calls, one)
        held.append(calls.held_us)
    return max(held)


def _make(process: Process, calls: InjectedCalls, wanted: tuple[str, int, int]) -> None:
    """Make one call that takes something back."""
    name, one, two = wanted
    if name == "close" and not _is_ours(process, "fd/%d" % one):
        return  # the program closed it, and may have given the number to a file of its own
    answer = calls.call(name, one, two)
    if name == "munmap" and answer < 0:
        raise _refused(process, name, answer)


def _map_region(process: Process, patch_id: str, parts: list[tuple[tuple[int, int, int], bytes]]) -> int:
    held: list[int] = []
    done: list[tuple[str, int, int]] = []
    contents = [content for _part, content in parts]
    at_once = sum(map(len, contents)) <= _MOST_WHILE_HELD

    def make(calls: InjectedCalls) -> None:
        done.append(("close", _make_file(process, calls, patch_id), 0))
        if at_once:
            fill()

    def fill() -> None:
        _fill_file(process, done[0][1], patch_id, contents)

    def put(part: tuple[int, int, int], offset: int) -> Callable[[InjectedCalls], None]:
        def put_it(calls: InjectedCalls) -> None:
            _map(process, calls, part, done[0][1], offset)
            done.append(("munmap", part[0], part[1]))

        return put_it

    offsets = itertools.accumulate((len(content) for content in contents), initial=0)
    wanted = [make, *(put(part, offset) for (part, _content), offset in zip(parts, offsets))]
    wanted.append(lambda calls: _make(process, calls, done[0]))
    try:
        while wanted:
            now = 1 if not (held or at_once) else _CALLS_A_HOLD
            with injected_calls(process) as calls:
                for act in wanted[:now]:
                    act(calls)
            held.append(calls.held_us)
            wanted = wanted[now:]
            if len(held) == 1 and not at_once:
                fill()
        return max(held)
    except BaseException:
        # What cannot be taken back now is found, and taken out, by the next run (clear_remains).
        with contextlib.suppress(LivepatchError, OSError):
            _call_all(process, done[::-1])
        raise


def _make_file(process: Process, calls: InjectedCalls, patch_id: str) -> int:
    name = calls.place_text(NAME + patch_id)
    # MFD_EXEC came with Linux 6.3; where vm.memfd_noexec is 2 only files are allowed that cannot be executed, but they
    # can be mapped so.
    for flags in (_MFD_EXEC, 0, _MFD_NOEXEC_SEAL):
        descriptor = calls.call("memfd_create", name, _MFD_CLOEXEC | flags)
        if descriptor not in (-errno.EINVAL, -errno.EACCES):
            break
    if descriptor < 0:
        raise _refused(process, "memfd_create", descriptor)
    return descriptor


def _fill_file(process: Process, descriptor: int, patch_id: str, contents: list[bytes]) -> None:
    # Other threads run, and may close any number and use it again: nothing is opened, or written to, unlooked at.
    if _is_ours(process, "fd/%d" % descriptor):
        ours = process.open("fd/%d" % descriptor, os.O_RDWR)
        try:
            if os.readlink("/proc/self/fd/%d" % ours) == file_name(patch_id):
                _write_all(ours, contents)
                return
        finally:
            os.close(ours)
    raise LivepatchError(
        "no_room_near_object",
        "%s closed the file that was to hold the patch, as descriptor %d" % (process, descriptor),
        "Run the task again at a quieter moment.",
    )


def _write_all(descriptor: int, contents: list[bytes]) -> None:
    offset = 0
    for content in contents:
        rest = memoryview(content)
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            offset, rest = offset + written, rest[written:]


def _is_ours(process: Process, name: str) -> bool:
    return process.link(name).startswith("/memfd:" + NAME)


def _map(process: Process, calls: InjectedCalls, part: tuple[int, int, int], descriptor: int, offset: int) -> None:
    start, size, protection = part
    flags = _MAP_PRIVATE | _MAP_FIXED_NOREPLACE
    at = calls.call("mmap", start, size, protection, flags, descriptor, offset)
    if at == start:
        return
    if at > 0:  # before Linux 4.17 the address is only a wish
        calls.call("munmap", at, size)
        at = -errno.EEXIST
    if at == -errno.EEXIST:
        raise LivepatchError(
            "no_room_near_object", "%s mapped something at %#x meanwhile" % (process, start), "Run the task again."
        )
    raise _refused(process, "mmap", at)


def _refused(process: Process, call: str, result: int) -> LivepatchError:
    why = os.strerror(-result)
    return LivepatchError(
        "not_permitted",
        "the kernel refuses %s in %s: %s" % (call, process, why),
        "Check the limits of the process (address space, open files, locked memory) and its security policy.",
    )
