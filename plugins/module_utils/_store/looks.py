# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""When to look at processes that have just begun: their libraries are mapped a little later than the kernel tells.

Not polling: each program that begins is looked at three times, and never again.
"""

from __future__ import annotations

import heapq

# After the program began, seconds: most have their libraries by the first; a slow one by the second; what is opened
# early by dlopen(3), by the third.
LOOKS = (0.01, 0.05, 1.0)


class Looks:
    """Which process is to be looked at when (seconds of CLOCK_MONOTONIC)."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, int]] = []
        #: By process: the number of the program it runs, and when that is looked at for the last time.
        self._last: dict[int, tuple[int, float]] = {}
        self._count = 0

    def begin(self, pid: int, now: float) -> None:
        """A program began in a process."""
        self._add(pid, [now + after for after in LOOKS])

    def fork(self, pid: int, child: int, now: float) -> None:
        """A process had a child: that is looked at as long as its parent is, which may have been patched after it."""
        if pid in self._last:
            first, last = now + LOOKS[0], self._last[pid][1]
            self._add(child, [first, last] if first < last else [first])

    def forget(self, pid: int) -> None:
        """A process has exited."""
        self._last.pop(pid, None)

    def due(self, now: float) -> list[int]:
        """The processes to be looked at now."""
        found = []
        while self._due and self._due[0][0] <= now:
            at, number, pid = heapq.heappop(self._due)
            known, last = self._last.get(pid, (0, 0.0))
            if known == number:
                found.append(pid)
                if at >= last:
                    del self._last[pid]
        return list(dict.fromkeys(found))

    def next_due(self) -> float | None:
        """When the next look is due."""
        return self._due[0][0] if self._due else None

    def _add(self, pid: int, times: list[float]) -> None:
        self._count += 1
        self._last[pid] = (self._count, times[-1])
        for at in times:
            heapq.heappush(self._due, (at, self._count, pid))
