# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes over a host's turn from a run that this controller can see is dead; all else is the module's."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

from ..plugin_utils.run import life

_MODULE = "cgl.livepatch.livepatch_turn"


class ActionModule(ActionBase):
    """Action plugin of cgl.livepatch.livepatch_turn."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, and once more when it finds the turn taken by a dead run."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        ran = self._execute_module(_MODULE, task_vars=task_vars)
        if ran.get("failed") and ran.get("holder") and life(ran["holder"]) == "dead":
            arguments = dict(self._task.args, dead=[ran["holder"]])
            ran = self._execute_module(_MODULE, arguments, task_vars=task_vars)
        if ran.get("holder"):
            ran["alive"] = life(ran["holder"])
        return dict(result, **ran)
