# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The processes patched a short while ago: who of them dies now counts for the crash-loop guard."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Window:
    """One process in its first seconds with patches; `end` is seconds of CLOCK_MONOTONIC."""

    pid: int
    exe: str
    patches: tuple[str, ...]
    end: float
    is_service: bool


class Windows:
    """All of them, by process id."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._open: dict[int, Window] = {}

    def open(self, window: Window) -> None:
        """A process was patched."""
        self._open[window.pid] = window

    def fork(self, pid: int, child: int) -> None:
        """A process made a child: what it has, that has."""
        if pid in self._open:
            self._open[child] = replace(self._open[pid], pid=child)

    def leave(self, pid: int) -> None:
        """A process became another program."""
        self._open.pop(pid, None)

    def take(self, pid: int) -> Window | None:
        """The window of a process that has exited."""
        return self._open.pop(pid, None)

    def expired(self, now: float) -> list[Window]:
        """The windows that have ended without a death, taken out."""
        over = [window for window in self._open.values() if window.end <= now]
        for window in over:
            del self._open[window.pid]
        return over

    def next_end(self) -> float | None:
        """When the next window ends."""
        return min((window.end for window in self._open.values()), default=None)
