# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Restoring after a failure: whatever was written is taken back, in reverse order, and only where it is still ours."""

from __future__ import annotations

import contextlib

from .._errors import LivepatchError
from .._process.memory import Memory


def put_back(memory: Memory, changes: list[tuple[int, bytes, bytes]]) -> None:
    """Undo changes (address, new, old), also half of one; what has other bytes by now is left alone.

    Errors end nothing.
    """
    for address, new, old in reversed(changes):
        with contextlib.suppress(OSError, LivepatchError):
            now = memory.read(address, len(new))
            if now != old and all(byte in pair for byte, pair in zip(now, zip(new, old))):
                memory.write(address, old)
