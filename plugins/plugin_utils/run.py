# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which run of Ansible this is, so that hosts can say who works on them; and whether another run is dead."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any


def this_run() -> dict[str, Any]:
    """The run whose worker this process is: a process has one life in one PID namespace of one boot of a machine."""
    main = os.getppid()
    return {**_place(), "controller": os.uname().nodename, "pid": main, "start_time": _start_time(main)}


def life(owner: Mapping[str, Any]) -> str:
    """Whether the run `owner` is alive or dead; unknown where that cannot be seen from here."""
    if any(owner.get(key) != value for key, value in _place().items()) or not isinstance(owner.get("pid"), int):
        return "unknown"
    return "alive" if _start_time(owner["pid"]) == owner.get("start_time") else "dead"


def _place() -> dict[str, str]:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
        boot = stream.read().strip()
    return {"boot": boot, "pid_namespace": os.readlink("/proc/self/ns/pid")}


def _start_time(pid: int) -> int:
    """Ticks since boot at which process `pid` began (proc_pid_stat(5), field 22); 0 when it is gone, or a zombie."""
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])
