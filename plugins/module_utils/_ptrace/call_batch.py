# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls made ready beforehand, and then made one right after the other for as long as each does what it should.

A stop makes four calls a thread while threads stand still. Python needs 1 to 3 us for each, as much as the kernel does
for most of them; a loop of the processor's own instructions needs nothing that can be measured.

The loop is in memory that can be executed and never written to. Where the kernel grants none (SELinux's execmem, a
seccomp filter), each call is made by the C library, with the same outcome.
"""

from __future__ import annotations

import array
import ctypes
import functools
import mmap
import os
import struct
from typing import Callable

from .call_loop_x86_64 import LOOP

_CALL = struct.Struct("<10q")
_WORDS, _ARGUMENTS, _RESULT, _PLACE = 10, 6, 7, 8
_MAP_FAILED = ctypes.c_void_p(-1).value
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype, _libc.syscall.argtypes = ctypes.c_long, (ctypes.c_long,) * (1 + _ARGUMENTS)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)


class CallBatch:
    """Up to `size` system calls, in the order in which they are added, known by their index in it."""

    def __init__(self, size: int) -> None:
        self._words = array.array("q", bytes(size * _CALL.size))
        self._address = self._words.buffer_info()[0]
        self._count = 0

    def add(self, number: int, *arguments: int, place: int = 0, expected: int = 0) -> None:
        """Another call, with up to six arguments. It does what it should when the word (64 bits) at address `place` is
        `expected` afterwards; where no place is given, when it succeeds.
        """
        at = self._count * _CALL.size
        place = place or self._address + at + 8 * _RESULT
        arguments += (0,) * (_ARGUMENTS - len(arguments))
        _CALL.pack_into(self._words, at, number, *arguments, 0, place, expected)
        self._count += 1

    def set_call(self, index: int, number: int, *arguments: int) -> None:
        """Make the call at `index` another one, with as many arguments as are given changed."""
        at = index * _WORDS
        self._words[at : at + 1 + len(arguments)] = array.array("q", (number, *arguments))

    def run(self, first: int = 0, end: int | None = None) -> int:
        """Make the calls from index `first` up to `end`; the index of the first that did not do what it should, the
        last that was made, or `end`.
        """
        end = self._count if end is None else end
        loop = _loop()
        if loop is None:
            return self._one_by_one(first, end)
        last = loop(self._address + first * _CALL.size, self._address + end * _CALL.size)
        return int(last - self._address) // _CALL.size

    def run_all(self) -> None:
        """Make all calls, whatever comes of any of them."""
        at = 0
        while at < self._count:
            at = self.run(at) + 1

    def result(self, index: int) -> int:
        """What the call at `index` returned: as from the kernel, an error is a negative number."""
        return self._words[index * _WORDS + _RESULT]

    def results(self) -> array.array[int]:
        """What each call returned."""
        return self._words[_RESULT : self._count * _WORDS : _WORDS]

    def _one_by_one(self, first: int, end: int) -> int:
        for index in range(first, end):
            call = self._words[index * _WORDS : (index + 1) * _WORDS]
            self._words[index * _WORDS + _RESULT] = make_call(*call[: 1 + _ARGUMENTS])
            if ctypes.c_int64.from_address(call[_PLACE]).value != call[_PLACE + 1]:
                return index
        return end


def make_call(number: int, *arguments: int) -> int:
    """Make one system call with six arguments; what it returned: as from the kernel, an error is a negative number."""
    result = int(_libc.syscall(number, *arguments))
    return -ctypes.get_errno() if result == -1 else result


@functools.lru_cache(maxsize=None)
def _loop() -> Callable[[int, int], int] | None:
    """The loop, mapped from a file in memory that only we have; None where that may not be executed."""
    descriptor = -1
    try:
        descriptor = os.memfd_create("call-batch", os.MFD_CLOEXEC)
        if os.write(descriptor, LOOP) != len(LOOP):
            return None
        address = _libc.mmap(None, len(LOOP), mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, descriptor, 0)
    except OSError:
        return None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    if address == _MAP_FAILED:
        return None
    return ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_long)(address)
