# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON that somebody else may have written: objects, lists, texts and whole numbers of a size that an address has."""

from __future__ import annotations

import json
from typing import Any

# Python needs minutes for a number of millions of digits.
_MOST_DIGITS = 20


def strict_json(raw: bytes) -> Any:
    """The value in these bytes. Raises ValueError for anything but JSON in ASCII without fractions."""
    try:
        return json.loads(raw.decode("ascii"), parse_int=_whole, parse_float=_refused, parse_constant=_refused)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError("a number has %d digits" % len(digits))
    return int(digits)


def _refused(text: str) -> None:
    raise ValueError("%s is no whole number" % text[:40])
