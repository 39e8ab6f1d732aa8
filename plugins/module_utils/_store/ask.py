# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Run by the launcher: asks the service to hold the launcher's next program until it is patched.

Standard library only, and little of it, and none of the collection: this is in the way of every start of a service.
What fails here is told (the journal of the unit has it), and the program then starts without patches.
"""

from __future__ import annotations

import os
import socket
import sys
import time

# How long the service is waited for, seconds: when it is just being started again; for a sign of life; and then for its
# turn, as many services start at once when a host boots.
_CONNECT, _ANSWER, _TURN = 1.0, 10.0, 60.0
_PAUSE = 0.02


def ask(path: str) -> str:
    """Ask at the socket `path`; what went wrong, in words, or an empty text."""
    end = time.monotonic() + _CONNECT
    while True:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(_ANSWER)
                connection.connect(path)
                return _answer(connection)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if time.monotonic() > end:
                return "service cgl-livepatch does not run (%s)" % error
            time.sleep(_PAUSE)
        except OSError as error:
            return "service cgl-livepatch cannot be asked (%s)" % error


def _answer(connection: socket.socket) -> str:
    """Wait for a line "go", or "no: " and the reason; "wait" says that one of them will come."""
    told = b""
    while True:
        line, end, rest = told.partition(b"\n")
        if not end:
            piece = connection.recv(256)
            if not piece:
                return "it did not answer"
            told += piece
        elif line == b"wait":
            connection.settimeout(_TURN)
            told = rest
        else:
            return "" if line == b"go" else line.decode("utf-8", "replace").replace("no: ", "", 1).strip()


if __name__ == "__main__":
    problem = ask(sys.argv[1])
    if problem:
        sys.stderr.write("<3>cgl.livepatch: process %d starts without live patches: %s\n" % (os.getppid(), problem))
        raise SystemExit(1)
