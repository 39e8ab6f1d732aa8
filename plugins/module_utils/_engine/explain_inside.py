# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Saying who is inside, for the error of a switch or an unloading that was refused for it."""

from __future__ import annotations

import struct

from .._errors import LivepatchError
from .._process.process import Process
from .address_names import AddressNames
from .region import find_regions
from .threads_inside import Inside

# How many calls of a stack are named, and how many bytes of it are looked at for them.
_MOST_CALLS, _MOST_BYTES = 16, 1 << 16


def busy(process: Process, inside: Inside, what: str) -> LivepatchError:
    """The error function_busy for who was found: thread, function and stack, or the place in memory.

    `what` says what it is about: "code that is to be replaced", "patch fix".
    """
    mappings = process.maps()
    names = AddressNames(process, mappings, find_regions(process.memory, mappings))
    where = names.name(inside.where) if inside.where else ""
    if not inside.tid and not inside.where:
        return LivepatchError(
            "function_busy",
            "memory of %s at %#x (%s) cannot be read, not even by us: whether it leads into %s is not known"
            % (process, inside.at, names.area(inside.at), what),
            "Restart the process, or leave the patch there: one that is not active does nothing.",
        )
    if not inside.tid:
        calls = _calls(names, inside, inside.at)
        return LivepatchError(
            "function_busy",
            "%s has a word at %#x (%s) that leads into %s (%#x, %s): of a suspended coroutine, or a pointer that it "
            "keeps; its memory was scanned for such words, so it may also be out of use%s"
            % (
                process,
                inside.at,
                names.area(inside.at),
                what,
                inside.where,
                where,
                calls and ". From there up: " + calls,
            ),
            "Let the program end what it has under way there, or give such pointers up, and run the task again.",
        )
    who = "thread %d%s of %s" % (inside.tid, _thread_name(process, inside.tid), process)
    if not inside.where:
        return LivepatchError(
            "function_busy",
            "%s did not stop in time, or its stack could not be read: it may be inside %s" % (who, what),
        )
    return LivepatchError(
        "function_busy",
        "%s is, or may come back, inside %s (%#x, %s, %s). Its stack, scanned and not unwound (it may show calls that "
        "have returned): %s"
        % (
            who,
            what,
            inside.where,
            where,
            "on its stack at %#x" % inside.at if inside.at else "in a register",
            _calls(names, inside, 0) or "no return address",
        ),
    )


def _calls(names: AddressNames, inside: Inside, start: int) -> str:
    """The return addresses on a stack, from `start` up, innermost first, in words."""
    found = [names.name(inside.where)] if not inside.at and inside.where else []
    seen = looked = 0
    for at, piece in inside.stack:
        first = max(-at % 8, start - at)
        for place, (word,) in enumerate(struct.iter_unpack("<Q", _words(piece[first:]))):
            address = at + first + 8 * place
            looked += 8
            if address <= seen:
                continue  # pieces overlap
            seen = address
            if len(found) >= _MOST_CALLS or looked > _MOST_BYTES:
                return " < ".join([*found, "..."])
            if address == inside.at or names.is_code(word):
                found.append(names.name(word))
    return " < ".join(found)


def _words(piece: bytes) -> bytes:
    return piece[: len(piece) // 8 * 8]


def _thread_name(process: Process, tid: int) -> str:
    try:
        return " (%s)" % process.read_text("task/%d/comm" % tid).strip()
    except LivepatchError:
        return ""
