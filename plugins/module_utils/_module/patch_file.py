# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The patch file that a task names, and its signature: on the host, or sent along (plugin_utils/send_patch.py)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from .._errors import LivepatchError
from .._patch.content import Patch
from .._patch.reader import MOST_FILE_BYTES, read_patch
from .._patch.signature import MOST_BYTES, SUFFIX
from .._patch.trust import Verdict, read_trust
from .failure import sentence

PATCH_SPEC: dict[str, Any] = {
    "patch": {"type": "str", "required": True},
    # A small file and its signature, in base64, which the controller sends along.
    "_content": {"type": "str", "no_log": True},
    "_signature": {"type": "str", "no_log": True},
    "remote_src": {"type": "bool", "default": False},
}


@dataclass(frozen=True)
class SentPatch:
    """A whole patch file, not parsed, with its signature; `verdict`: what that is worth on this host; `path`: as the
    task names it.
    """

    path: str
    content: bytes
    signature: bytes | None
    verdict: Verdict

    def parsed(self) -> Patch:
        """Raises LivepatchError patch_corrupt or patch_unsupported, which name the file."""
        try:
            return read_patch(self.content)
        except LivepatchError as error:
            raise LivepatchError(error.code, "%s: %s" % (self.path, error.message), error.remedy) from None


def checked_patch(params: dict[str, Any], settings: str) -> SentPatch:
    """The file that the parameters of a task name, read once, its signature checked by the folder `settings`.

    Raises LivepatchError patch_corrupt when it cannot be read, signature_missing, signature_invalid, trust_unsafe.
    """
    trust = read_trust(settings)
    if params["_content"]:
        content = base64.b64decode(params["_content"])
        signature = base64.b64decode(params["_signature"]) if params["_signature"] else None
    else:
        try:
            content = _read(params["patch"], MOST_FILE_BYTES)
        except OSError as problem:
            raise LivepatchError("patch_corrupt", "cannot read the patch file: %s" % problem) from None
        try:
            signature = _read(params["patch"] + SUFFIX, MOST_BYTES)
        except FileNotFoundError:
            signature = None
        except OSError as problem:
            raise LivepatchError("signature_missing", "cannot read the signature: %s" % problem) from None
    path = params["patch"]
    return SentPatch(path, content, signature, trust.check(content, signature, path))


def warn_of_signature(module: AnsibleModule, verdict: Verdict) -> None:
    """Say what a host whose policy is only to warn would not have taken otherwise."""
    if verdict.error:
        module.warn("The patch is taken all the same (signature_policy warn): " + sentence(verdict.error.as_dict()))


def _read(path: str, most: int) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(most + 1)
