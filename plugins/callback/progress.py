# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later, v3.0 among them (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""One line for each host, as soon as it is known what became of it, and a heading for each turn of a rollout."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: notification
short_description: Show in the terminal how hosts are patched, a line each
version_added: 0.1.0
author:
  - cgl.livepatch contributors (@cgl)
description:
  - Prints a line for each host as soon as a task of this collection ended there, with the state of the patch, in how
    many processes, and how long these were stopped; or why it failed.
  - Prints a heading for each wave and turn of the roles P(cgl.livepatch.rollout#role) and
    P(cgl.livepatch.rollback#role), before anything is done there.
  - The lines come beside those of the callback that writes to the terminal. To see little else, set
    C(display_ok_hosts) and C(display_skipped_hosts) of P(ansible.builtin.default#callback) to V(false).
requirements:
  - To be enabled, in C(callbacks_enabled) of the configuration or C(ANSIBLE_CALLBACKS_ENABLED).
seealso:
  - module: cgl.livepatch.livepatch_plan
"""

from collections.abc import Mapping
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase

from ..plugin_utils.progress import heading, line

_OURS = "cgl.livepatch.livepatch_"
# What is worth a line when it went well; of others, only a failure is.
_TOLD = ("load", "activate", "facts", "health")


class CallbackModule(CallbackBase):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "cgl.livepatch.progress"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._plan: Mapping[str, Any] = {}
        self._at: tuple[int, bool] | None = None
        self._counts: dict[str, int] = {}

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """A play begins, of which no plan is known yet."""
        self._plan, self._at = {}, None

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """A task begins on a host: when the host has another turn than the one before, say so."""
        number = self._plan.get("turn_of", {}).get(host.get_name())
        if number is None or _short(task) not in ("load", "activate"):
            return
        at = (number, task.args.get("state") in ("absent", "inactive"))
        if at != self._at:
            self._at = at
            self._display.display(heading(self._plan["turns"], *at), color=constants.COLOR_HIGHLIGHT)

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task ended well."""
        if _short(result._task) == "plan":
            self._plan, self._at = result._result, None
        elif _short(result._task) in _TOLD and "results" not in result._result:  # loops look at other hosts
            changed = result._result.get("changed")
            self._tell(result, constants.COLOR_CHANGED if changed else constants.COLOR_OK)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A task failed; whether that is ignored makes no difference to what became of the host."""
        if _short(result._task):
            self._tell(result, constants.COLOR_ERROR, "FAILED")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host cannot be reached."""
        if _short(result._task):
            self._tell(result, constants.COLOR_UNREACHABLE, "UNREACHABLE")

    def _tell(self, result: Any, color: str, bad: str = "") -> None:
        task = result._task
        self._counts[task._uuid] = self._counts.get(task._uuid, 0) + 1
        said = line(_short(task), result._result, bool(task.check_mode), bad)
        self._display.display("%s%s: %s" % (self._count(task), result._host.get_name(), said), color=color)

    def _count(self, task: Any) -> str:
        """Which of how many hosts of the turn this is; empty where that is not known."""
        if self._at is None or _short(task) not in _TOLD:
            return "  "
        return "  [%d/%d] " % (self._counts[task._uuid], len(self._plan["turns"][self._at[0]]["hosts"]))


def _short(task: Any) -> str:
    """The name of a module of this collection, without what they all begin with; empty for any other."""
    action = str(task.action)
    return action[len(_OURS) :] if action.startswith(_OURS) else ""
