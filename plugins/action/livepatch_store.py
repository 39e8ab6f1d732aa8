# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends the patch file of livepatch_store from the controller."""

from __future__ import annotations

from ..plugin_utils.send_patch import SendPatch


class ActionModule(SendPatch):
    """Action plugin of cgl.livepatch.livepatch_store."""

    MODULE = "cgl.livepatch.livepatch_store"
