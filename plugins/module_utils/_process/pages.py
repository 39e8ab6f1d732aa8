# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pages of a process hold something of its own, from /proc/PID/pagemap (the kernel's admin-guide, pagemap).

A page that was never touched is not read: reading it would give the process a page more.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import struct
from typing import Iterator

from .._errors import LivepatchError
from .process import Process

PAGE = 4096
_ENTRY = 8
# The highest byte of an entry: bit 63 (in memory) or bit 62 (swapped out). Bit 58 tells a guard (MADV_GUARD_INSTALL).
_HELD = re.compile(
    b"[" + b"".join(re.escape(bytes([byte])) for byte in range(0x40, 0x100) if byte & 0x80 or not byte & 4) + b"]+"
)
# So many entries are read at once; an area of more pages is first searched for where it is used at all.
_AT_ONCE = 1 << 16
# ioctl PAGEMAP_SCAN (Linux 6.7): struct pm_scan_arg, struct page_region.
_SCAN = 0xC0606610
_ARGUMENT, _REGION = struct.Struct("<12Q"), struct.Struct("<3Q")
_REGIONS = 1024
_PRESENT_OR_SWAPPED = 0x18


def held_pages(process: Process, areas: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The parts [start, end) of these address ranges, of whole pages, that are in memory or swapped out, in order.

    All of them where the kernel does not tell. Raises LivepatchError process_gone or not_permitted.
    """
    try:
        descriptor = process.open("pagemap")
    except LivepatchError as error:
        if error.code == "process_gone" and not process.has_exited():  # a kernel without it
            yield from areas
            return
        raise
    try:
        for area in areas:
            for start, end in _used(descriptor, *area):
                for at in range(start, end, _AT_ONCE * PAGE):
                    yield from _held(descriptor, at, min(end, at + _AT_ONCE * PAGE))
    finally:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def is_devices(process: Process, start: int) -> bool:
    """True when the mapping that begins at `start` is a device's: what a processor may not read for others.

    Known by its flags io or pf in /proc/PID/smaps (proc_pid_smaps(5)). Raises LivepatchError process_gone.
    """
    head = "%08x-" % start
    inside = False
    for line in process.read_text("smaps").splitlines():
        if inside and line.startswith("VmFlags:"):
            return bool({"io", "pf"} & set(line.split()))
        if not line[:1].isupper():
            inside = line.startswith(head)
    return False


def _used(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of one area that have pages; all of it where it is small, or the kernel cannot tell so fast.

    A program may reserve terabytes and use little of them; an entry a page would then take minutes to read.
    """
    regions = bytearray(_REGIONS * _REGION.size)
    vector = ctypes.addressof(ctypes.c_char.from_buffer(regions))
    while end - start > _AT_ONCE * PAGE:
        argument = bytearray(
            _ARGUMENT.pack(_ARGUMENT.size, 0, start, end, 0, vector, _REGIONS, 0, 0, 0, _PRESENT_OR_SWAPPED, 8)
        )
        try:
            count = fcntl.ioctl(descriptor, _SCAN, argument)
        except OSError:
            break
        for index in range(count):
            first, last, _categories = _REGION.unpack_from(regions, index * _REGION.size)
            yield first, last
        start = _ARGUMENT.unpack(argument)[4]
    if start < end:
        yield start, end


def _held(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    wanted = (end - start) // PAGE * _ENTRY
    entries = os.pread(descriptor, wanted, start // PAGE * _ENTRY)
    if len(entries) < wanted:
        yield start, end
        return
    for run in _HELD.finditer(entries[_ENTRY - 1 :: _ENTRY]):
        yield start + run.start() * PAGE, start + run.end() * PAGE
