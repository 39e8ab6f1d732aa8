# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the role report asks; the filter is described in the YAML file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..plugin_utils.report.looks import gaps


class FilterModule:
    """What Ansible asks of a file of filters."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters by name."""
        return {"report_gaps": gaps}
