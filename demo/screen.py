# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The terminal: a line for each step, and some lines that are drawn again and again while something goes on."""

from __future__ import annotations

import os
import shutil
import sys
import time

_COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


class Screen:
    """Where the demonstration speaks. `live`: lines can be drawn again. Colours only there, and never with NO_COLOR."""

    def __init__(self, plain: bool) -> None:
        self.begin = time.monotonic()
        self.live = not plain and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.colours = self.live and not os.environ.get("NO_COLOR")
        self._drawn = 0

    def step(self, text: str) -> None:
        """Begin a step: the time since the start, and what it does."""
        self.say(f"{time.monotonic() - self.begin:5.1f} s  {self.paint(text, 'bold')}")

    def detail(self, text: str) -> None:
        """Something about the step, under it."""
        self.say("\n".join(f"         {line}".rstrip() for line in text.split("\n")))

    def table(self, rows: list[list[str]]) -> None:
        """Rows of cells of equal width under the step, closer together where there is little room."""
        gap = "  " if self.width() >= 95 else " "
        indent = " " * 9 if self.width() >= 95 else "  "
        self.say("\n".join((indent + gap.join(row)).rstrip() for row in rows))

    def say(self, text: str) -> None:
        """Print below everything; what was drawn before stays as it is."""
        self._drawn = 0
        print(text, flush=True)

    def draw(self, lines: list[str]) -> None:
        """Draw these lines over the ones of the last call, if nothing was said since. Only on a live screen."""
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        print(up + "".join(f"\x1b[2K{line}\n" for line in lines), end="", flush=True)
        self._drawn = len(lines)

    def paint(self, text: str, colour: str) -> str:
        """The text in that colour, if there are colours."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.colours else text

    def width(self) -> int:
        """Columns; 100 where nobody knows."""
        return shutil.get_terminal_size((100, 24)).columns if self.live else 100

    def signs(self) -> tuple[str, str, str]:
        """Signs for old, mixed and new answers that this output can show."""
        encoding = sys.stdout.encoding or "ascii"
        try:
            "░▒█".encode(encoding)
        except (UnicodeEncodeError, LookupError):
            return ".", "+", "#"
        return "░", "▒", "█"
