# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A short differential run, always of the same programs; `make differential` tries others, and more."""

from __future__ import annotations

from pathlib import Path

import pytest
from differential import require_enough, run, told

FIRST, AT_ONCE = 20050, 4


@pytest.mark.parametrize("part", range(2))
def test_random_edits(part: int, tmp_path: Path) -> None:
    """Each program is patched and equal, or refused; most are patched."""
    first = FIRST + part * AT_ONCE
    print("seeds %d to %d" % (first, first + AT_ONCE - 1))
    ended, wrong = run(list(range(first, first + AT_ONCE)), tmp_path)
    print(told(ended))
    assert wrong == []
    require_enough(ended)
