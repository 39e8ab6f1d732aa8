# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A callback for the tests: when each task began and ended on each host, as lines of JSON in the file TIMELINE."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: timeline
type: aggregate
short_description: When each task began and ended on each host
description: For tests.
"""


class CallbackModule(CallbackBase):
    """See above."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "timeline"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """A task begins on a host."""
        self._note("begin", host.get_name(), task)

    def v2_runner_on_ok(self, result: Any) -> None:
        """A task ended well."""
        self._note("ok", result.host.get_name(), result.task)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """A task failed."""
        self._note("failed", result.host.get_name(), result.task)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """A host cannot be reached."""
        self._note("failed", result.host.get_name(), result.task)

    def v2_runner_on_skipped(self, result: Any) -> None:
        """A task was not carried out."""
        self._note("skipped", result.host.get_name(), result.task)

    def _note(self, event: str, host: str, task: Any) -> None:
        line = {"at": time.time(), "event": event, "host": host, "task": task.get_name().rpartition(" : ")[2]}
        with open(os.environ["TIMELINE"], "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
