# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections on loopback, for the loads and probes of the descriptions."""

from __future__ import annotations

import json
import socket

from .program import Probe
from .running import Running

TIMEOUT = 20.0


class Stream:
    """A TCP connection that sends bytes and reads them."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        """All of it."""
        self._socket.sendall(data)

    def line(self) -> bytes:
        """The next line, with its end. Raises ConnectionResetError when the other side has closed."""
        line = self._reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError(f"closed after {line!r}")
        return line

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises ConnectionResetError when there are fewer."""
        data = self._reader.read(size)
        if len(data) != size:
            raise ConnectionResetError(f"closed after {len(data)} of {size} bytes")
        return data

    def expect(self, data: bytes) -> None:
        """Read what must come next."""
        found = self.read(len(data))
        if found != data:
            raise AssertionError(f"{found!r} came in place of {data!r}")

    def close(self) -> None:
        """End the connection."""
        self._reader.close()
        self._socket.close()


class Exchange:
    """A session of the load that always asks the same and is always answered the same."""

    def __init__(self, port: int, request: bytes, answer: bytes) -> None:
        self._stream, self._request, self._answer = Stream(port), request, answer

    def ask(self) -> None:
        """One request."""
        self._stream.send(self._request)
        self._stream.expect(self._answer)

    def close(self) -> None:
        """End the connection."""
        self._stream.close()


class Host:
    """A session with a host program (hosts/host.py): a function of it by name, its answer as JSON."""

    def __init__(self, port: int) -> None:
        self._stream = Stream(port)

    def call(self, name: str, *arguments: object) -> object:
        """What the function answers. Raises AssertionError with what it raised."""
        self._stream.send(json.dumps([name, *arguments]).encode() + b"\n")
        answer = json.loads(self._stream.line())
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer["value"]

    def ask(self) -> None:
        """One request of the load: the host's function `work` checks by itself that all is right."""
        self.call("work")

    def close(self) -> None:
        """End the connection."""
        self._stream.close()


def called(name: str, unfixed: str, fixed: str) -> Probe:
    """What a function of the host program answers, on a connection of its own; see program.Probe for the rest."""

    def ask(running: Running, _patches: list[str]) -> str:
        host = Host(running.port)
        try:
            return str(host.call(name))
        finally:
            host.close()

    return Probe(ask, unfixed, fixed)
