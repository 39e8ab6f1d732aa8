# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The GNU build-id of an object: the only identity a patch trusts."""

from __future__ import annotations

import functools
import os
import stat
import struct

from .header import PT_LOAD, PT_NOTE, Header, NotElf, Read, parse_header

NT_GNU_BUILD_ID = 3
# Notes of real objects are under 200 bytes; more than this is not read.
_MOST_NOTE_BYTES = 4096


@functools.lru_cache(maxsize=64)
def notes_build_id(notes: bytes) -> str | None:
    """The build-id (lower-case hex) among the bytes of a PT_NOTE segment, or None (gABI, "Note Section")."""
    at = 0
    while at + 12 <= len(notes):
        name_size, value_size, kind = struct.unpack_from("<III", notes, at)
        name_at = at + 12
        value_at = name_at + (name_size + 3 & ~3)
        end = value_at + (value_size + 3 & ~3)
        if end > len(notes) + 3:
            return None
        if kind == NT_GNU_BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0":
            return notes[value_at : value_at + value_size].hex()
        at = end
    return None


def build_id_notes(read: Read, header: Header, bias: int) -> tuple[int, bytes] | None:
    """Address and content of the notes that hold the build-id, of an object whose segments lie at `bias` + their
    address in what `read` reads; None where no notes do.
    """
    for segment in header.segments:
        if segment.kind == PT_NOTE and 0 < segment.file_size <= _MOST_NOTE_BYTES:
            notes = read(bias + segment.address, segment.file_size)
            if notes_build_id(notes):
                return bias + segment.address, notes
    return None


def memory_build_id(read: Read, start: int) -> tuple[Header, int, str | None]:
    """Header, load bias and build-id of the object mapped with its first page at `start`.

    Raises NotElf, and what `read` raises. All from memory: the file may be gone or replaced.
    """
    header = parse_header(read, start)
    if not any(segment.kind == PT_LOAD for segment in header.segments):
        raise NotElf("no loadable segment")
    bias = start - header.lowest_page()
    found = build_id_notes(read, header, bias)
    return header, bias, notes_build_id(found[1]) if found else None


def file_build_id(path: str) -> str | None:
    """The build-id of an object on disk, or None when it has none.

    A pipe or a device is not waited for. Raises NotElf and OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotElf("%s is no file" % path)

        def read(offset: int, size: int) -> bytes:
            return os.pread(descriptor, size, offset) if offset < 1 << 63 else b""

        header = parse_header(read)
        for segment in header.segments:
            if segment.kind == PT_NOTE and 0 < segment.file_size <= _MOST_NOTE_BYTES:
                found = notes_build_id(read(segment.offset, segment.file_size))
                if found:
                    return found
    finally:
        os.close(descriptor)
    return None
