# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What a task did, for the journal and the log of the host."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .._engine.outcome import Report
from .._errors import LivepatchError
from .._store.audit import DONE, FAILED, REFUSED, Deed, record
from .._store.audit_log import examine
from .._store.places import Places


def note(module: AnsibleModule, deed: Deed) -> None:
    """Write down what was done; in check mode nothing was."""
    if not module.check_mode:
        problem = record(Places(), deed)
        if problem:
            module.warn(problem)


def note_refusal(
    module: AnsibleModule, action: str, patch: str, error: LivepatchError, signature: dict[str, Any] | None = None
) -> None:
    """Write down that a task was refused as a whole."""
    note(module, Deed(action, REFUSED, _program(module), patch, signature=signature, error=error.as_dict()))


def note_report(
    module: AnsibleModule, action: str, about: dict[str, Any], report: Report, signature: dict[str, Any] | None = None
) -> None:
    """Write down what was done to processes, where any was changed or failed."""
    meant = [outcome for outcome in report.outcomes if outcome.changed or outcome.error]
    if not meant:
        return
    rows = tuple(
        {
            "pid": outcome.pid,
            "exe": outcome.exe,
            "before": outcome.before,
            "state": outcome.state,
            "code": (outcome.error or {}).get("code", ""),
        }
        for outcome in meant
    )
    error = next((outcome.error for outcome in meant if outcome.error), None)
    outcome = FAILED if error else DONE
    deed = Deed(
        action,
        outcome,
        _program(module),
        about["id"],
        about.get("version", ""),
        about.get("sha256", ""),
        rows,
        signature,
        error,
    )
    note(module, deed)


def note_stored(
    module: AnsibleModule, action: str, result: dict[str, Any], signature: dict[str, Any] | None = None
) -> None:
    """Write down what was put into the store, or taken out."""
    if result["changed"]:
        desired = result["desired"] or {}
        deed = Deed(
            action,
            DONE,
            _program(module),
            result["patch"],
            desired.get("version", ""),
            desired.get("sha256", ""),
            signature=signature,
        )
        note(module, deed)


def log_facts(places: Places, most: int, expected: str) -> dict[str, Any]:
    """What livepatch_facts says of the log; `most` of its last entries. Raises OSError, LivepatchError."""
    chain = examine(places, most, expected)
    return {
        "path": places.audit_log,
        "exists": chain.exists,
        "intact": chain.intact,
        "count": chain.count,
        "torn": chain.torn,
        "breaks": chain.breaks,
        "head": chain.head,
        "head_found": chain.found,
        "entries": chain.entries,
    }


def _program(module: AnsibleModule) -> str:
    return str(module._name).rpartition(".")[2]
