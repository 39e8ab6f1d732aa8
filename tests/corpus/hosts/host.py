# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A host program for a library: python3 host.py FILE PORT, where FILE defines what may be called in it.

Connections on loopback, each served by a thread of its own: a line is a JSON list, the name of a function and its
arguments; the answer is a line {"value": ...}, or {"error": ...} with what it raised.
"""

from __future__ import annotations

import json
import runpy
import socketserver
import sys
from typing import Any


class Calls(socketserver.StreamRequestHandler):
    """One connection."""

    functions: dict[str, Any] = {}  # noqa: RUF012  (set once, before the server begins)

    def handle(self) -> None:
        """Answer calls until the other side closes."""
        for line in self.rfile:
            name, *arguments = json.loads(line)
            try:
                answer = {"value": self.functions[name](*arguments)}
            except Exception as error:  # the caller is told, whatever it is
                answer = {"error": repr(error)}
            self.wfile.write(json.dumps(answer).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    """Threads that do not keep the program from ending."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    Calls.functions = runpy.run_path(sys.argv[1])
    with Server(("127.0.0.1", int(sys.argv[2])), Calls) as server:
        server.serve_forever()
