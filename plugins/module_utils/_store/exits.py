# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching the end of single processes where the kernel tells of none by itself: pidfd_open(2), PIDFD_GET_INFO."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import struct

_SYS_PIDFD_OPEN = 434
# linux/pidfd.h (6.15): struct pidfd_info of 64 bytes, whose last field is the exit status.
_PIDFD_GET_INFO, _PIDFD_INFO_EXIT, _SIZE = 0xC040FF0B, 1 << 3, 64
_libc = ctypes.CDLL(None, use_errno=True)


class Exits:
    """Processes whose end is waited for."""

    def __init__(self) -> None:
        self._watched: dict[int, int] = {}
        self._expected: dict[int, int] = {}
        #: What to wait for, poll(2). How it ended is told from when its parent has waited for it, which is when the
        #: descriptor hangs up; where nothing is told, there is no use in waiting for that.
        self.events = 0 if _kernel_tells() else select.POLLIN

    def expect(self, pid: int) -> None:
        """It may be watched soon, and be gone by then: what is known of its end is kept until it is forgotten."""
        self.forget(pid)
        with contextlib.suppress(OSError):
            self._expected[pid] = open_pid(pid)

    def forget(self, pid: int) -> None:
        """It is not to be watched; nothing where it is already, or was not expected."""
        if pid in self._expected:
            os.close(self._expected.pop(pid))

    def watch(self, pid: int) -> bool:
        """Wait for its end; False where it is gone, and was not expected."""
        try:
            descriptor = self._expected.pop(pid) if pid in self._expected else open_pid(pid)
        except OSError:
            return False
        self._watched[descriptor] = pid
        return True

    def descriptors(self) -> list[int]:
        """Where to wait for `events`."""
        return list(self._watched)

    def take(self, descriptor: int) -> tuple[int, int | None]:
        """Which process has ended, and its wait status, None where the kernel does not tell."""
        pid, status = self._watched.pop(descriptor), exit_status(descriptor)
        os.close(descriptor)
        return pid, status


def open_pid(pid: int) -> int:
    """A descriptor that poll(2) finds readable once the process has exited. Raises OSError."""
    descriptor = int(_libc.syscall(_SYS_PIDFD_OPEN, pid, 0))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def exit_status(descriptor: int) -> int | None:
    """The wait status of a process that has exited, and for which its parent has waited; None where it is not known."""
    room = bytearray(_SIZE)
    struct.pack_into("<Q", room, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(descriptor, _PIDFD_GET_INFO, room)
    except OSError:
        return None
    mask = struct.unpack_from("<Q", room, 0)[0]
    return struct.unpack_from("<i", room, _SIZE - 4)[0] if mask & _PIDFD_INFO_EXIT else None


def _kernel_tells() -> bool:
    """Whether this kernel tells how others ended: Linux does from 6.15 on. Tried with a child of our own."""
    child = os.fork()
    if not child:
        os._exit(0)
    try:
        descriptor = open_pid(child)
    except OSError:
        return False
    finally:
        os.waitpid(child, 0)
    try:
        return exit_status(descriptor) is not None
    finally:
        os.close(descriptor)
