# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The kill switch: a file, or a word on the kernel's command line, and nothing is applied by itself any more."""

from __future__ import annotations

import os

from .places import Places

WORD = "cgl_livepatch=off"


def switched_off(places: Places) -> str:
    """Why nothing is to be applied, in words; empty when nothing speaks against it."""
    if os.path.lexists(places.disable):
        return "the file %s is there" % places.disable
    try:
        with open(places.kernel_words, encoding="utf-8", errors="replace") as stream:
            words = stream.read().split()
    except OSError:
        words = []
    return "the kernel was started with %s" % WORD if WORD in words else ""
