# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What --diff shows of an operation on processes: one line a process, before and after."""

from __future__ import annotations

from .._engine.outcome import Outcome


def diff(patch_id: str, outcomes: list[Outcome]) -> dict[str, str]:
    """The diff of a task: each process with the state of the patch in it."""
    return {
        "before_header": "patch %s" % patch_id,
        "after_header": "patch %s" % patch_id,
        "before": "".join("%s (pid %d): %s\n" % (outcome.exe, outcome.pid, outcome.before) for outcome in outcomes),
        "after": "".join("%s (pid %d): %s\n" % (outcome.exe, outcome.pid, outcome.state) for outcome in outcomes),
    }
