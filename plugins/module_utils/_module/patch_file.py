# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The patch file that a task names: on the host, or sent along by the controller (plugin_utils/send_patch.py)."""

from __future__ import annotations

import base64
from typing import Any

from .._errors import LivepatchError
from .._patch.reader import MOST_FILE_BYTES

PATCH_SPEC: dict[str, Any] = {
    "patch": {"type": "str", "required": True},
    # A small file, in base64, which the controller sends along.
    "_content": {"type": "str", "no_log": True},
    "remote_src": {"type": "bool", "default": False},
}


def patch_bytes(params: dict[str, Any]) -> bytes:
    """The whole file, unread. Raises LivepatchError patch_corrupt when it cannot be read."""
    if params["_content"]:
        return base64.b64decode(params["_content"])
    try:
        with open(params["patch"], "rb") as stream:
            return stream.read(MOST_FILE_BYTES + 1)
    except OSError as problem:
        raise LivepatchError("patch_corrupt", "cannot read the patch file: %s" % problem) from None
