# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's patch for CVE-2026-25243 in redis: src/rdb.c, src/sds.c, src/zipmap.c, and upstream's tests."""

from __future__ import annotations

import os

NAME = "CVE-2026-25243"
# The program, without the tests.
PROGRAM = "src/"


def debian_patch(tree: str) -> str:
    """Where the patch lies in an unpacked source package."""
    return os.path.join(tree, "debian", "patches", NAME + ".patch")
