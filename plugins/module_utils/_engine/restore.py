# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Restoring after a failure: whatever was written is taken back, in reverse order, and only where it is still ours."""

from __future__ import annotations

from .._errors import LivepatchError
from .._process.memory import Memory


def put_back(memory: Memory, changes: list[tuple[int, bytes, bytes]]) -> list[int]:
    """Undo changes (address, new, old), also half of one; the addresses of those that could not be undone.

    What has other bytes by now is left alone; what is not mapped any more, or whose process is gone, needs nothing.
    Raises nothing.
    """
    failed = []
    for address, new, old in reversed(changes):
        try:
            now = memory.read(address, len(new))
        except (OSError, LivepatchError):
            continue
        if now == old:
            continue
        try:
            if not all(byte in pair for byte, pair in zip(now, zip(new, old))):
                raise OSError
            memory.write(address, old)
        except OSError:
            failed.append(address)
        except LivepatchError as error:
            failed += [address] if error.code != "process_gone" else []
    return failed
