# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends a patch file from the controller, as ansible.builtin.copy does, and runs a module on it on the host."""

from __future__ import annotations

import base64
import os
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

# Up to this size a file goes along with the module, in the same connection; that saves three on each host.
_MOST_BYTES_ALONG = 128 << 10


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
                if os.path.getsize(file) <= _MOST_BYTES_ALONG:
                    with open(file, "rb") as stream:
                        arguments["_content"] = base64.b64encode(stream.read()).decode()
                else:
                    folder = self._make_tmp_path()
                    target = self._connection._shell.join_path(folder, os.path.basename(source))
                    self._transfer_file(file, target)
                    self._fixup_perms2((folder, target))
                    arguments.update(patch=target, remote_src=True)
            ran = self._execute_module(self.MODULE, arguments, task_vars=task_vars)
            return dict(result, **ran)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
