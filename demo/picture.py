# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The picture of the traffic: for each host, a row with a sign for every half second of answers."""

from __future__ import annotations

import time

from .screen import Screen
from .traffic import Traffic

CELL = 0.5  # seconds a sign
REDRAW = 0.2  # seconds between two drawings
_PLACE_FOR_TEXT = 42  # columns beside the signs


class Picture:
    """What the clients of every host hear since it was made: drawn again and again, or told in lines when plain."""

    def __init__(self, screen: Screen, traffic: Traffic) -> None:
        self.screen = screen
        self.traffic = traffic
        self.begin = time.monotonic()
        self._drawn_at = 0.0
        self._heard: dict[str, str] = {}

    def update(self) -> None:
        """Show what is new; cheap to call often."""
        now = time.monotonic()
        if now - self._drawn_at < REDRAW:
            return
        self._drawn_at = now
        self.traffic.check()
        if self.screen.live:
            self.screen.draw(self._rows())
        else:
            self._tell()

    def finish(self) -> None:
        """Show it as it is now, to stay."""
        rows = self._rows()
        if self.screen.live:
            self.screen.draw(rows)
            self.screen.say(f"         {self.legend()}")
        else:
            self.screen.say("\n".join([*rows, f"         {self.legend()}"]))

    def legend(self) -> str:
        """What the signs mean."""
        old, mixed, new = self.screen.signs()
        return self.screen.paint(f"half a second each: {old} old answers, {mixed} both, {new} new", "dim")

    def _rows(self) -> list[str]:
        most = max(10, self.screen.width() - _PLACE_FOR_TEXT)
        lately = self.traffic.over(time.monotonic() - 1.0)
        rows = []
        for host, cells in self._cells().items():
            signs = "".join(self._sign(cell) for cell in cells[-most:])
            seen = lately[host]
            rows.append(f"         {host}  {signs}  {seen.old:4d} old {seen.new:4d} new /s")
        return rows

    def _cells(self) -> dict[str, list[set[str]]]:
        """For each host, for each half second, which kinds of answers came."""
        count = int((time.monotonic() - self.begin) / CELL)
        cells: dict[str, list[set[str]]] = {host: [set() for _cell in range(count)] for host in self.traffic.hosts}
        for report in reversed(tuple(self.traffic.reports)):
            number = int((report["at"] - self.begin) / CELL)
            if report["at"] < self.begin:
                break
            if number < count:
                for host, seen in report["hosts"].items():
                    cells[host][number] |= {kind for kind in ("old", "new", "wrong", "lost") if seen[kind]}
        return cells

    def _sign(self, kinds: set[str]) -> str:
        old, mixed, new = self.screen.signs()
        if kinds & {"wrong", "lost"}:
            return self.screen.paint("!", "red")
        if kinds == {"old"}:
            return self.screen.paint(old, "yellow")
        if kinds == {"new"}:
            return self.screen.paint(new, "green")
        return self.screen.paint(mixed, "green") if kinds else " "

    def _tell(self) -> None:
        """Say when a host's answers change."""
        for host, seen in self.traffic.over(time.monotonic() - 0.35).items():
            heard = "new" if seen.new and not seen.old else "old" if seen.old and not seen.new else ""
            if heard and heard != self._heard.setdefault(host, heard):
                self._heard[host] = heard
                at = time.monotonic() - self.screen.begin
                self.screen.say(f"{at:5.1f} s    {host} gives {heard} answers: {seen.last}")
