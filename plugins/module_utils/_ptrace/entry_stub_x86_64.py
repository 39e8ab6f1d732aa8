# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The few instructions in which a program that just begins waits, by itself, until a time: nothing has to let it go.

`clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, until)`, then on to the entry point. A program has at its entry only
rsp and rdx to rely on (System V ABI AMD64, "Process Initialization"); rdx is kept in r8 over the call. The call is
one that systemd's SystemCallFilter= always permits (@default in systemd.exec(5)). When a signal or a tracer interrupts
it, the kernel makes it again with the same end.
"""

from __future__ import annotations

import struct

_CODE = (
    b"\x49\x89\xd0"  # mov %rdx,%r8
    b"\xbf\x01\x00\x00\x00"  # mov $1,%edi (CLOCK_MONOTONIC)
    b"\x89\xfe"  # mov %edi,%esi (TIMER_ABSTIME)
    b"\x48\x8d\x15\x13\x00\x00\x00"  # lea until(%rip),%rdx
    b"\x45\x31\xd2"  # xor %r10d,%r10d
    b"\xb8\xe6\x00\x00\x00"  # mov $230,%eax (clock_nanosleep)
    b"\x0f\x05"  # syscall
    b"\x4c\x89\xc2"  # mov %r8,%rdx
    b"\xff\x25\x10\x00\x00\x00"  # jmp *entry(%rip)
)
_DATA = struct.Struct("<qqQ")
SIZE = len(_CODE) + _DATA.size
#: Where its program counter is while it waits, from the start of the stub.
AFTER_CALL = _CODE.index(b"\x0f\x05") + 2


def stub(entry: int, until: float) -> bytes:
    """The code and data of a stub that goes on to `entry` at `until`, seconds of CLOCK_MONOTONIC."""
    seconds = int(until)
    return _CODE + _DATA.pack(seconds, int((until - seconds) * 1e9), entry)
