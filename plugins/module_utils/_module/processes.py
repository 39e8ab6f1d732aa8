# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The option `processes`, common to the modules that work on running processes."""

from __future__ import annotations

from typing import Any

from .._process.selection import Selection

PROCESSES_SPEC: dict[str, Any] = {
    "type": "dict",
    "options": {
        "pids": {"type": "list", "elements": "int"},
        "exe": {"type": "path"},
        "unit": {"type": "str"},
        "user": {"type": "str"},
        "cgroup": {"type": "str"},
    },
}


def selection(value: dict[str, Any] | None) -> Selection:
    """The selection that the option means."""
    given = value or {}
    return Selection(
        pids=tuple(given.get("pids") or ()),
        exe=given.get("exe") or "",
        unit=given.get("unit") or "",
        user=given.get("user") or "",
        cgroup=given.get("cgroup") or "",
    )
