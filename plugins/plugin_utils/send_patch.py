# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends a patch file, and the signature beside it, from the controller, and runs a module on it on the host."""

from __future__ import annotations

import base64
import os
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

# Up to this size a file goes along with the module, in the same connection; that saves three on each host.
_MOST_BYTES_ALONG = 128 << 10
# No signature is larger; what is, the host would refuse.
_MOST_SIGNATURE_BYTES = 64 << 10


def _encoded(path: str, most: int = -1) -> str:
    with open(path, "rb") as stream:
        return base64.b64encode(stream.read(most)).decode()


class SendPatch(ActionBase):
    """Action of a module whose option `patch` is a file with state: present."""

    TRANSFERS_FILES = True
    #: The module to run.
    MODULE = ""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send the file if there is one to send; everything else is the module's."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        sends = arguments.get("state", "present") == "present" and not boolean(arguments.get("remote_src", False))
        try:
            if sends and arguments.get("patch"):
                try:
                    source = self._find_needle("files", arguments["patch"])
                except AnsibleError as error:
                    remedy = "Give the path of the patch file on the controller, or set remote_src for one on the host."
                    told = {"code": "patch_corrupt", "message": str(error), "remedy": remedy}
                    return dict(result, failed=True, changed=False, msg="%s. %s" % (error, remedy), error=told)
                file = self._loader.get_real_file(source)
                signature = source + ".sig" if os.path.exists(source + ".sig") else None
                if os.path.getsize(file) <= _MOST_BYTES_ALONG:
                    arguments["_content"] = _encoded(file)
                    if signature:
                        arguments["_signature"] = _encoded(signature, _MOST_SIGNATURE_BYTES + 1)
                else:
                    folder = self._make_tmp_path()
                    target = self._connection._shell.join_path(folder, os.path.basename(source))
                    sent = {target: file, target + ".sig": signature} if signature else {target: file}
                    for place, one in sent.items():
                        self._transfer_file(one, place)
                    self._fixup_perms2((folder, *sent))
                    arguments.update(patch=target, remote_src=True)
            ran = self._execute_module(self.MODULE, arguments, task_vars=task_vars)
            return dict(result, **ran)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
