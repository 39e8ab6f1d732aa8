# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The launcher: what services are started through, and how the service answers it.

The launcher is a shell script, so that a program starts even where Python is broken: a child of it asks the service,
then it becomes the program (exec), whatever came of that. So the program has the process id that systemd knows.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import struct
import time
from typing import Callable

from .._errors import LivepatchError
from .._process.process import Process
from .._ptrace.hold_at_entry import Held, hold_at_entry, release
from .._ptrace.watchdog import watched
from .apply import Applied, apply_to
from .kill_switch import WORD
from .places import Places
from .store import Store
from .wanted import Wishes

# How long the launcher may take to become the program, and the program then to reach its entry and be patched, seconds.
# Where all goes well these are milliseconds. They must do on a host that is busy with its boot, and not use up the time
# that systemd gives a service to start (90 s) where the service dies while it holds a program.
BEGIN, HOLD = 40.0, 15.0


def launcher_text(places: Places, python: str) -> str:
    """The launcher of a host, a shell script. `python`: the interpreter with the libraries."""
    return """#!/bin/sh
# Starts a program with its live patches: launch PROGRAM ARGUMENTS... (cgl.livepatch, role persist; made by it)
# Whatever goes wrong here, the program starts. It keeps this process's id, environment and open files.
if [ ! -e {disable} ] && ! grep -qw {word} {words} 2>/dev/null; then
    {python} -I -S {ask} {socket} </dev/null || :
fi
exec "$@"
""".format(
        disable=shlex.quote(places.disable),
        word=shlex.quote(WORD),
        words=shlex.quote(places.kernel_words),
        python=shlex.quote(python),
        ask=shlex.quote(places.program + "/cgl_livepatch/_store/ask.py"),
        socket=shlex.quote(places.socket),
    )


def asker(connection: socket.socket) -> int:
    """The process that asks through a connection: the parent of the peer (unix(7), SO_PEERCRED).

    Only for a process of the same user: nobody may have others held. Raises LivepatchError process_gone, not_permitted.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, user, _group = struct.unpack("iII", raw)
    if pid <= 0:
        raise LivepatchError("process_gone", "who asks is in another PID namespace")
    with Process(pid) as peer:
        parent = int(peer.stat()[1])
    if parent <= 1:
        raise LivepatchError("process_gone", "who asked has exited")
    with Process(parent) as other:
        if set(other.status("Uid").split()) != {str(user)}:
            raise LivepatchError("not_permitted", "who asks for process %d is another user than that" % parent)
    return parent


def launch(store: Store, wishes: Wishes, pid: int, connection: socket.socket) -> Applied | None:
    """Hold the next program of process `pid` at its entry, patch it, let it go. None where it wants nothing.

    Raises LivepatchError; the program then runs on, unpatched, or goes on by itself after HOLD seconds.
    """
    with Process(pid) as process:

        def work(tell: Callable[[object], None]) -> None:
            def begin() -> None:
                connection.sendall(b"go\n")
                connection.close()

            tell(hold_at_entry(process, begin, time.monotonic() + BEGIN, HOLD))

        result = watched(work)
        connection.close()
        held = next((thing for thing in result.told if isinstance(thing, Held)), None)
        if held is None:
            if result.died:
                raise LivepatchError("internal", "what held process %d was killed" % pid)
            return None
        process.as_it_is_now()
        try:
            wanted = wishes.of(process)
            return apply_to(store, process, wanted) if wanted.entries or wanted.held else None
        finally:
            release(process, held)


def refuse(connection: socket.socket, why: str) -> None:
    """Tell the launcher that nobody will hold its program."""
    with contextlib.suppress(OSError):  # it went on already
        connection.setblocking(False)
        connection.sendall(("no: " + why.replace("\n", " ")).encode("utf-8", "replace")[:250] + b"\n")
    connection.close()
