# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The one place that imports python-ptrace: the raw call, the register structure, the numbers of requests.

Where it is not installed, importing this still works, and LIBRARY_ERROR says what is wrong: the modules then name the
missing library instead of failing with a traceback.
"""

from __future__ import annotations

import ctypes
import re
import traceback

LIBRARY_ERROR = ""
try:
    from ptrace import PtraceError
    from ptrace.binding.func import (
        PTRACE_DETACH,
        PTRACE_GETREGSET,
        PTRACE_SETREGSET,
        PTRACE_SYSCALL,
        ptrace,
        ptrace_registers_t,
    )
    from ptrace.binding.linux_struct import iovec_struct
except ImportError:
    LIBRARY_ERROR = traceback.format_exc()
    PtraceError = OSError
    PTRACE_DETACH = PTRACE_GETREGSET = PTRACE_SETREGSET = PTRACE_SYSCALL = 0
    ptrace = None
    ptrace_registers_t = iovec_struct = ctypes.c_byte

__all__ = (
    "LIBRARY_ERROR",
    "PTRACE_DETACH",
    "PTRACE_GETREGSET",
    "PTRACE_SETREGSET",
    "PTRACE_SYSCALL",
    "PtraceError",
    "error_number",
    "iovec_struct",
    "ptrace",
    "ptrace_registers_t",
)


def error_number(error: PtraceError) -> int:
    """The errno of a call that failed.

    With its module in C (cptrace, which Debian's package has), python-ptrace 0.9.8 looks for it where only ctypes keeps
    one, and always gives 0; its message has it in any case.
    """
    found = re.search(r" error #(\d+)", str(error))
    return int(error.errno or 0) or (int(found.group(1)) if found else 0)
