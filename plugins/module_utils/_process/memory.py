# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and writing the memory of a process, through /proc/PID/mem (proc_pid_mem(5))."""

from __future__ import annotations

import array
import ctypes
import errno
import os

from .._errors import LivepatchError

#: So many pieces can be read by one call (IOV_MAX, limits.h).
MOST_PIECES = 1024
_libc = ctypes.CDLL(None)


def read_pieces(tid: int, pieces: list[int], room: bytearray) -> bool:
    """Read many pieces of memory by one call, one behind the other into `room` (process_vm_readv(2)).

    `tid`: a thread that is held, so that it is the one that is meant; `pieces`: address and size of each, at most
    MOST_PIECES. False where not all could be read.
    """
    there = array.array("Q", pieces)
    here = array.array("Q", (ctypes.addressof(ctypes.c_char.from_buffer(room)), len(room)))
    vectors = ctypes.c_void_p(here.buffer_info()[0]), ctypes.c_ulong(1), ctypes.c_void_p(there.buffer_info()[0])
    _libc.process_vm_readv.restype = ctypes.c_ssize_t
    count = _libc.process_vm_readv(tid, *vectors, ctypes.c_ulong(len(pieces) // 2), ctypes.c_ulong(0))
    return bool(count == sum(pieces[1::2]))


class Memory:
    """One address space. The descriptor pins it: after an exec or exit reads and writes fail, they never reach
    another.
    """

    def __init__(self, descriptor: int, owner: str) -> None:
        self._descriptor = descriptor
        self._owner = owner

    def read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes at `address`.

        Raises OSError (EIO, EFAULT) where nothing is mapped, LivepatchError process_gone when the address space is
        gone.
        """
        if not 0 <= address < 1 << 63:
            raise OSError(errno.EFAULT, "no process has memory at %#x" % address)
        data = os.pread(self._descriptor, size, address)
        if len(data) == size:
            return data
        if not data and size:
            raise LivepatchError("process_gone", "%s has exited or become another program" % self._owner)
        rest = self.read(address + len(data), size - len(data))
        return data + rest

    def read_some(self, address: int, size: int) -> bytes:
        """Up to `size` bytes at `address`: fewer where the mapping ends, none where there is none."""
        try:
            return os.pread(self._descriptor, size, address)
        except (OSError, OverflowError):
            return b""

    def write(self, address: int, data: bytes) -> None:
        """Write `data` at `address`, also where the program itself may only read, and read it back.

        Private pages are copied on write (FOLL_FORCE). Raises LivepatchError memory_mismatch when what is there then is
        something else, not_permitted when the kernel denies it, process_gone.
        """
        try:
            written = os.pwrite(self._descriptor, data, address)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES, errno.EIO):
                raise LivepatchError(
                    "not_permitted",
                    "the kernel refuses to write %d bytes at %#x of %s: %s"
                    % (len(data), address, self._owner, error.strerror),
                    "Check that the kernel allows writes through /proc/PID/mem (boot parameter "
                    "proc_mem.force_override).",
                ) from None
            raise
        if written == 0 and data:
            raise LivepatchError("process_gone", "%s has exited or become another program" % self._owner)
        if written != len(data) or self.read(address, len(data)) != data:
            raise LivepatchError(
                "memory_mismatch",
                "wrote %d bytes at %#x of %s, read back something else" % (len(data), address, self._owner),
            )
