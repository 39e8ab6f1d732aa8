# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Why the kernel does not let us look into a process (ptrace(2), "Ptrace access mode checking"), and what to do."""

from __future__ import annotations

import os

from .._errors import LivepatchError

# What it takes to look into, and to write to, processes of others (capabilities(7)), by its number: the files of a
# process in /proc are its user's alone, and to open them is a matter of file permissions first.
NEEDED = {"CAP_SYS_PTRACE": 19, "CAP_DAC_OVERRIDE": 1}
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"


def denied(what: str, uids: list[str]) -> LivepatchError:
    """The error not_permitted for `what` was not allowed; `uids`: the process's users as in /proc/PID/status."""
    scope, own, lacking = _yama_scope(), os.geteuid(), " and ".join(lacking_capabilities())
    remedy = None
    if scope == "3":
        why = "kernel.yama.ptrace_scope is 3, which forbids it to everybody"
        remedy = "Set kernel.yama.ptrace_scope lower and start the host anew: it cannot be set back while that runs."
    elif own == 0 and lacking:
        why = "the task is root without %s" % lacking
        remedy = "Run the task with %s." % lacking
    elif own == 0:
        why = "the task is root, but not in the user namespace of that process, or a security policy forbids it"
        remedy = "Run the task as root of the host, with CAP_SYS_PTRACE: a container's root may do this in there only."
    elif any(uid != str(own) for uid in uids):
        why = "it runs as user %s, the task as user %d" % ("/".join(dict.fromkeys(uids)), own)
        why += " without %s" % lacking if lacking else ""
    elif scope in ("1", "2"):
        why = "kernel.yama.ptrace_scope is %s, which forbids it to all but root" % scope
    else:
        why = "it is of the task's own user, but was set-user-ID, or hides its memory (PR_SET_DUMPABLE)"
    return LivepatchError("not_permitted", "%s: %s" % (what, why), remedy)


def lacking_capabilities() -> list[str]:
    """Those of NEEDED that this process does not have."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as stream:
        held = next((int(line.split()[1], 16) for line in stream if line.startswith("CapEff:")), 0)
    return [name for name, number in NEEDED.items() if not held >> number & 1]


def _yama_scope() -> str:
    """The setting of Linux's Yama module, empty where there is none."""
    try:
        with open(_YAMA, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""
