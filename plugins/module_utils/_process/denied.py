# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Why the kernel does not let us look into a process (ptrace(2), "Ptrace access mode checking"), and what to do."""

from __future__ import annotations

import os

from .._errors import LivepatchError

_YAMA = "/proc/sys/kernel/yama/ptrace_scope"


def denied(what: str, uids: list[str]) -> LivepatchError:
    """The error not_permitted for `what` was not allowed; `uids`: the process's users as in /proc/PID/status."""
    scope, own = _yama_scope(), os.geteuid()
    remedy = None
    if scope == "3":
        why = "kernel.yama.ptrace_scope is 3, which forbids it to everybody"
        remedy = "Set kernel.yama.ptrace_scope lower and start the host anew: it cannot be set back while that runs."
    elif own == 0:
        why = "the task is root, but not in the user namespace of that process, or a security policy forbids it"
        remedy = "Run the task as root of the host, with CAP_SYS_PTRACE: a container's root may do this in there only."
    elif any(uid != str(own) for uid in uids):
        why = "it runs as user %s, the task as user %d" % ("/".join(dict.fromkeys(uids)), own)
    elif scope in ("1", "2"):
        why = "kernel.yama.ptrace_scope is %s, which forbids it to all but root" % scope
    else:
        why = "it is of the task's own user, but was set-user-ID, or hides its memory (PR_SET_DUMPABLE)"
    return LivepatchError("not_permitted", "%s: %s" % (what, why), remedy)


def _yama_scope() -> str:
    """The setting of Linux's Yama module, empty where there is none."""
    try:
        with open(_YAMA, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""
