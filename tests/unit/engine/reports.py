# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of the engine ask of a report."""

from __future__ import annotations

from module_utils._engine.outcome import Outcome, Report


def only(report: Report) -> Outcome:
    """The outcome of an operation on one process."""
    assert len(report.outcomes) == 1
    return report.outcomes[0]


def well(report: Report) -> Outcome:
    """The outcome of an operation that must succeed in one process, and was verified."""
    outcome = only(report)
    assert (outcome.error, outcome.verified) == (None, True), outcome.error
    return outcome
