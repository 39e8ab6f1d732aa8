# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A picture of a table of pauses: for each scene a bar for each way; each line of the scale is ten times the last."""

from __future__ import annotations

import math
from html import escape

_COLOURS = ("#9aa5b1", "#b7791f", "#2f855a", "#2b6cb0", "#c05621")
_LEFT, _BAR, _GAP, _HEIGHT, _TOP = 190, 11, 14, 30, 56
_WIDTH = 560
# The scale runs from here to here, as powers of ten of microseconds.
_FROM, _TO = 1, 7


def chart(title: str, ways: list[str], rows: list[tuple[str, list[float]]]) -> str:
    """SVG text; `rows`: what each group of bars is called, and its figures in microseconds, one for each of `ways`."""
    group = len(ways) * _BAR + _GAP
    bottom = _TOP + len(rows) * group
    parts = [_text(8, 18, title, size=14), *_legend(ways), *_scale(bottom)]
    for index, (name, figures) in enumerate(rows):
        top = _TOP + index * group
        parts.append(_text(_LEFT - 8, top + group / 2, name, anchor="end"))
        for way, figure in enumerate(figures):
            y, width = top + way * _BAR, _x(figure) - _LEFT
            shape = '<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>'
            parts.append(shape % (_LEFT, y, max(width, 1), _BAR - 2, _COLOURS[way]))
            parts.append(_text(_LEFT + max(width, 1) + 4, y + 8, _words(figure), size=9))
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif">'
    return "\n".join([head % (_LEFT + _WIDTH + 60, bottom + _HEIGHT), *parts, "</svg>"]) + "\n"


def _x(figure: float) -> float:
    return _LEFT + _WIDTH * max(0.0, math.log10(max(figure, 1)) - _FROM) / (_TO - _FROM)


def _words(microseconds: float) -> str:
    if microseconds < 1000:
        return "%d us" % microseconds
    return "%.3g ms" % (microseconds / 1000) if microseconds < 1e6 else "%.3g s" % (microseconds / 1e6)


def _legend(ways: list[str]) -> list[str]:
    parts = []
    for index, way in enumerate(ways):
        x = _LEFT + index * 140
        parts.append('<rect x="%d" y="28" width="10" height="10" fill="%s"/>' % (x, _COLOURS[index]))
        parts.append(_text(x + 14, 37, way))
    return parts


def _scale(bottom: int) -> list[str]:
    parts = []
    for power in range(_FROM, _TO + 1):
        x = _x(10**power)
        line = '<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#d0d7de"/>'
        parts += [line % (x, _TOP - 8, x, bottom), _text(x, bottom + 14, _words(10**power), anchor="middle")]
    return parts


def _text(x: float, y: float, words: str, size: int = 11, anchor: str = "start") -> str:
    form = '<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s">%s</text>'
    return form % (x, y, size, anchor, escape(words))
