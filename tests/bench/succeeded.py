# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks ask of a report: a figure of something that failed is none."""

from __future__ import annotations

from module_utils._engine.outcome import Outcome, Report


def succeeded(report: Report) -> list[Outcome]:
    """The outcomes of an operation. Raises RuntimeError with the message of the first that is an error."""
    for outcome in report.outcomes:
        if outcome.error:
            raise RuntimeError(outcome.error["message"])
    return report.outcomes


def only(report: Report) -> Outcome:
    """The outcome of an operation on one process. Raises RuntimeError as `succeeded`."""
    (outcome,) = succeeded(report)
    return outcome
