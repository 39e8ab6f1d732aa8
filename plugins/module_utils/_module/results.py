# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""From the outcomes of an operation to the result of a task: what changed, what failed, what to warn of."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .._engine.outcome import Outcome, Report
from .._errors import LivepatchError
from .diff import diff
from .failure import fail, sentence


def finish(module: AnsibleModule, report: Report, patch_id: str, require_target: bool, **extra: Any) -> None:
    """End the task with the outcomes of an operation; it fails when any process failed, after all were tried."""
    result: dict[str, Any] = dict(
        changed=any(outcome.changed for outcome in report.outcomes),
        processes=[asdict(outcome) for outcome in report.outcomes],
        summary=report.summary(),
        **extra,
    )
    if module._diff:
        result["diff"] = diff(patch_id, report.outcomes)
    warn_of_unreadable(module, report.unreadable)
    if not report.outcomes and (require_target or module.params["state"] in ("present", "active")):
        message = "no process here is meant: none maps the object of patch %s, or has that patch in it" % patch_id
        if require_target:
            fail(module, LivepatchError("process_gone", message, "Start the program, or widen 'processes'."), **result)
        module.warn(message[0].upper() + message[1:] + ".")
    failed = [outcome for outcome in report.outcomes if outcome.error]
    if failed:
        first = failed[0].error or {}
        module.fail_json(msg=_failure(failed, len(report.outcomes)), error=first, **result)
    module.exit_json(**result)


def warn_of_unreadable(module: AnsibleModule, count: int) -> None:
    """Say that processes were left out because they could not be looked at."""
    if count:
        remedy = (
            "they have capabilities that it lacks"
            if os.geteuid() == 0
            else "run it with 'become: true' to include them"
        )
        module.warn("%d processes may not be looked at by this task, and were left out: %s." % (count, remedy))


def _failure(failed: list[Outcome], targets: int) -> str:
    lines = ["pid %d: %s" % (outcome.pid, sentence(outcome.error)) for outcome in failed if outcome.error]
    return "%d of %d processes failed. %s" % (len(failed), targets, " | ".join(lines[:5]))
