# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking at many processes, each of which may let whoever looks at it wait for ever (see _process/patience.py)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Callable, Iterable

from .._errors import LivepatchError
from .._process.patience import OUT_OF_PATIENCE, die_after
from .._process.process import Process
from .._process.selection import Selection, selected
from .._ptrace.watchdog import watched


@dataclass(frozen=True)
class _At:
    """Told before a process is looked at."""

    pid: int


def look_at_each(
    selection: Selection, look: Callable[[Process], Iterable[Any]], seconds: float
) -> tuple[list[Any], int]:
    """All that `look` finds in the processes that are meant, and how many of them kept it from coming to an end.

    By a child, which dies where a process lets it wait for so many `seconds`; another one then goes on behind that.
    What is found must be picklable. Raises what `look` raises; LivepatchError internal when a child was killed
    otherwise.
    """
    selection = replace(selection, never=(*selection.never, os.getpid()))
    found: list[Any] = []
    met: set[int] = set()
    endless = 0
    while True:
        result = watched(lambda tell: _look_at_each(selection, look, seconds, met, tell))
        found += [thing for thing in result.told if not isinstance(thing, _At)]
        begun = [thing.pid for thing in result.told if isinstance(thing, _At)]
        if not result.died:
            return found, endless
        if result.signal != OUT_OF_PATIENCE or not begun:
            raise LivepatchError("internal", "who looked at processes was killed (signal %d)" % result.signal)
        met.update(begun)
        endless += 1


def _look_at_each(
    selection: Selection,
    look: Callable[[Process], Iterable[Any]],
    seconds: float,
    met: set[int],
    tell: Callable[[Any], None],
) -> None:
    for process in selected(selection):
        if process.pid in met:
            continue
        tell(_At(process.pid))
        with die_after(seconds):
            found = list(look(process))
        for thing in found:
            tell(thing)
