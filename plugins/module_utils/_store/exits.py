# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Watching the end of single processes where the kernel tells of none by itself: pidfd_open(2), PIDFD_GET_INFO."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

_SYS_PIDFD_OPEN = 434
# linux/pidfd.h (6.15): struct pidfd_info of 64 bytes, whose last field is the exit status.
_PIDFD_GET_INFO, _PIDFD_INFO_EXIT, _SIZE = 0xC040FF0B, 1 << 3, 64
_libc = ctypes.CDLL(None, use_errno=True)


def open_pid(pid: int) -> int:
    """A descriptor that poll(2) finds readable once the process has exited. Raises OSError."""
    descriptor = int(_libc.syscall(_SYS_PIDFD_OPEN, pid, 0))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def exit_status(descriptor: int) -> int | None:
    """The wait status of a process that has exited and was waited for by its parent, None where it is not known (yet).

    Linux tells it from 6.15 on.
    """
    room = bytearray(_SIZE)
    struct.pack_into("<Q", room, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(descriptor, _PIDFD_GET_INFO, room)
    except OSError:
        return None
    mask = struct.unpack_from("<Q", room, 0)[0]
    return struct.unpack_from("<i", room, _SIZE - 4)[0] if mask & _PIDFD_INFO_EXIT else None
