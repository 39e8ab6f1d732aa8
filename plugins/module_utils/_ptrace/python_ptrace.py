# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place that imports python-ptrace: the structures and the numbers of requests.

Where it is not installed, importing this still works, and LIBRARY_ERROR says what is wrong: the modules then name the
missing library instead of failing with a traceback.
"""

from __future__ import annotations

import ctypes
import traceback

LIBRARY_ERROR = ""
try:
    from ptrace.binding.func import (
        PTRACE_DETACH,
        PTRACE_GETREGSET,
        PTRACE_SETREGSET,
        PTRACE_SYSCALL,
        ptrace_registers_t,
    )
    from ptrace.binding.linux_struct import iovec_struct
except ImportError:
    LIBRARY_ERROR = traceback.format_exc()
    PTRACE_DETACH = PTRACE_GETREGSET = PTRACE_SETREGSET = PTRACE_SYSCALL = 0
    ptrace_registers_t = iovec_struct = ctypes.c_byte

__all__ = (
    "LIBRARY_ERROR",
    "PTRACE_DETACH",
    "PTRACE_GETREGSET",
    "PTRACE_SETREGSET",
    "PTRACE_SYSCALL",
    "iovec_struct",
    "ptrace_registers_t",
)
