# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Choosing which processes are meant."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from typing import Iterator

from .._errors import LivepatchError
from .maps import DELETED, Mapping
from .objects import MappedObject, candidate_starts, object_at
from .process import Process


@dataclass(frozen=True)
class Selection:
    """What narrows the processes of a host; an empty field does not. All that are given must hold.

    `pids`: process ids; `exe`: path of the program; `unit`: systemd unit, `.service` may be left out; `user`: name or
    number of the owner; `cgroup`: path of a control group, its children included.
    `never`: processes that are not meant whatever the others say: who asks. `share`: (which, of how many) shares of all
    processes is meant.
    """

    pids: tuple[int, ...] = ()
    exe: str = ""
    unit: str = ""
    user: str = ""
    cgroup: str = ""
    never: tuple[int, ...] = ()
    share: tuple[int, int] = (0, 1)

    def matches(self, process: Process) -> bool:
        """True when the process is one of those meant. Raises LivepatchError process_gone."""
        if self.pids and process.pid not in self.pids:
            return False
        if self.exe and exe_of(process) != self.exe:
            return False
        if self.user and process.status("Uid").split()[1:2] != [_uid(self.user)]:
            return False
        if self.unit or self.cgroup:
            paths = [line.split(":", 2)[2] for line in process.read_text("cgroup").splitlines()]
            if self.unit and not any(_unit_names(self.unit) & set(path.split("/")) for path in paths):
                return False
            wanted = "/" + self.cgroup.strip("/")
            if self.cgroup and not any((path + "/").startswith(wanted + "/") for path in paths):
                return False
        return True


def exe_of(process: Process) -> str:
    """The path of the program, without what the kernel adds when the file is gone; empty when it may not be known."""
    path = process.link("exe")
    return path[: -len(DELETED)] if path.endswith(DELETED) else path


def selected(selection: Selection) -> Iterator[Process]:
    """Every process of this host that is meant, open until the next one is asked for; never the caller itself.

    Pids that are named and do not exist are left out: see `missing_pids`. Raises LivepatchError for a user that does
    not exist.
    """
    if selection.user:
        _uid(selection.user)
    pids = sorted(selection.pids) or [int(name) for name in os.listdir("/proc") if name.isdigit()]
    for pid in sorted(pids):
        which, shares = selection.share
        if pid % shares != which or pid == os.getpid() or pid in selection.never:
            continue
        try:
            process = Process(pid)
        except LivepatchError:
            continue
        with process:
            try:
                meant = selection.matches(process)
            except LivepatchError:
                continue
            if meant:
                yield process


def check_numbering() -> None:
    """Raises LivepatchError where /proc numbers processes otherwise than the kernel does for us (pid_namespaces(7)).

    A process found by its number there would be another one to ptrace(2).
    """
    try:
        same = os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        same = False
    if not same:
        raise LivepatchError(
            "not_permitted",
            "/proc shows the processes of another PID namespace than that of this task",
            "Run the task on the host itself, or mount proc anew in the container (mount -t proc proc /proc).",
        )


def missing_pids(selection: Selection) -> list[int]:
    """The pids that are named and do not exist now."""
    return [pid for pid in sorted(selection.pids) if not os.path.isdir("/proc/%d" % pid)]


class ObjectFinder:
    """Finds an object in process after process; each file is identified once, by device and inode."""

    def __init__(self, *build_ids: str) -> None:
        """`build_ids`: several where patches of one id are bound to several builds."""
        self._build_ids = build_ids
        self._known: dict[tuple[str, int, int], str] = {}

    def find(self, process: Process, mappings: list[Mapping]) -> list[MappedObject]:
        """The objects in this process, in address order: several where it has copies of one, or several builds.

        Raises LivepatchError not_permitted.
        """
        matching = []
        for mapping in candidate_starts(mappings):
            key = (mapping.device, mapping.inode, mapping.end - mapping.start)
            if key not in self._known:
                found = object_at(process.memory, mappings, mapping)
                # What is none here may be one elsewhere: this process may just be mapping it, or only read it.
                if found is None:
                    continue
                self._known[key] = found.build_id
            if self._known[key] in self._build_ids:
                matching.append(mapping)
        # What is an object elsewhere may only be read here.
        looked_at = [object_at(process.memory, mappings, mapping) for mapping in matching]
        return [found for found in looked_at if found is not None]


def _unit_names(unit: str) -> set[str]:
    return {unit, unit + ".service"}


def _uid(user: str) -> str:
    if user.isdigit():
        return user
    try:
        return str(pwd.getpwnam(user).pw_uid)
    except KeyError:
        raise LivepatchError("process_gone", "there is no user %s here" % user, "Check 'processes.user'.") from None
