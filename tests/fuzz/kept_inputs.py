# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The inputs that are kept: one text file for each target, a line of base64 for each input."""

from __future__ import annotations

import base64
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "corpus"


def kept(target: str) -> list[bytes]:
    """The inputs of a target, none where nothing was kept yet."""
    path = FOLDER / (target + ".txt")
    lines = path.read_text(encoding="ascii").split() if path.exists() else []
    return [base64.b64decode(line) for line in lines]


def keep(target: str, inputs: list[bytes]) -> None:
    """Write down the inputs of a target, shortest first."""
    lines = [base64.b64encode(one).decode("ascii") for one in sorted(set(inputs), key=lambda one: (len(one), one))]
    (FOLDER / (target + ".txt")).write_text("".join(line + "\n" for line in lines), encoding="ascii")
