# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes that are several to the kernel and one to us: those that share one address space (CLONE_VM, vfork)."""

from __future__ import annotations

import ctypes
import os

from .._errors import LivepatchError
from .process import Process

_SYS_KCMP = {"x86_64": 312, "aarch64": 272}
_KCMP_VM = 1
# A process that has not become another program since it was made (the flags in proc_pid_stat(5)).
_PF_FORKNOEXEC = 0x40
_libc = ctypes.CDLL(None)


def may_know_shared() -> bool:
    """True where the kernel tells who shares memory with whom (CONFIG_KCMP)."""
    return share_memory(os.getpid(), os.getpid())


def share_memory(one: int, two: int) -> bool:
    """True when these two threads run in one address space (kcmp(2)); False where that cannot be told."""
    number = _SYS_KCMP.get(os.uname().machine)
    return number is not None and int(_libc.syscall(number, one, two, _KCMP_VM, 0, 0)) == 0


def shares_parents_memory(process: Process) -> bool:
    """True for a child that runs in its parent's memory, as between vfork and exec (kcmp(2)).

    The threads that matter are then the parent's. False where the kernel cannot tell (CONFIG_KCMP).
    """
    fields = process.stat()
    parent = int(fields[1])
    # A program that was begun has an address space of its own (execve(2)).
    if parent == 0 or not int(fields[6]) & _PF_FORKNOEXEC:
        return False
    try:
        with Process(parent) as other:
            threads = process.living_thread(), other.living_thread()
    except LivepatchError:
        return False
    return all(threads) and share_memory(*threads)
