# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""libevent, in an HTTP server of its own: the security fixes after the release, whose binary is still served."""

from __future__ import annotations

import os

from ..program import Fix, Probe, Program
from ..running import Running
from ..sessions import Stream

HOST = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "hosts", "libevent.py")


class Requests:
    """Requests over one connection that stays open, as HTTP/1.1 has it."""

    def __init__(self, port: int) -> None:
        self._stream = Stream(port)

    def ask(self) -> None:
        """One POST of four bytes."""
        status, body = self.request(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nfour")
        assert (status, body) == (200, b"body 4"), (status, body)

    def request(self, raw: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        self._stream.send(raw)
        status = int(self._stream.line().split()[1])
        length = 0
        while (line := self._stream.line()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, self._stream.read(length)

    def close(self) -> None:
        """End the connection."""
        self._stream.close()


def _answered(raw: bytes, unfixed: str, fixed: str) -> Probe:
    """What a request is answered, on a connection of its own."""

    def ask(running: Running, _patches: list[str]) -> str:
        requests = Requests(running.port)
        try:
            status, body = requests.request(raw)
            return body.decode() if status == 200 else str(status)
        finally:
            requests.close()

    return Probe(ask, unfixed, fixed)


def _chunked(path: bytes, headers: bytes = b"", trailer: bytes = b"") -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%s\r\n" % (path, headers)
    return head + b"4\r\nfour\r\n0\r\n%s\r\n" % trailer


LIBEVENT = Program(
    name="libevent",
    package="libevent",
    stock="2.1.12-stable-8",
    binaries=("libevent-2.1-7",),
    fixed="2.1.12-stable-8+deb12u1",
    artifact=".libs/libevent-2.1.so.7.0.1",
    deployed="usr/lib/x86_64-linux-gnu/libevent-2.1.so.7.0.1",
    library=True,
    sources=r"(include/event2/)?[^/]+\.[ch]$",
    command=lambda _deployed, _folder, port: ["/usr/bin/python3", HOST, str(port)],
    connect=Requests,
    fixes=(
        Fix(
            "CVE-2026-63379",
            ("CVE-2026-63379.patch",),
            _answered(_chunked(b"/header?X", trailer=b"X: smuggled\r\n"), "smuggled 4", "none 4"),
        ),
        Fix("CVE-2026-63381", ("CVE-2026-63381.patch",)),
        Fix(
            "CVE-2026-63382",
            ("CVE-2026-63382.patch",),
            _answered(_chunked(b"/x", b"Content-Length: 4\r\n"), "body 4", "400"),
        ),
        Fix("CVE-2026-63383", ("CVE-2026-63383.patch",)),
        Fix("CVE-2026-63384", ("CVE-2026-63384.patch",)),
        Fix(
            "CVE-2026-63385",
            ("CVE-2026-63385.patch",),
            _answered(b"GET /echo?X=a%0d%0a%20b HTTP/1.1\r\nHost: x\r\n\r\n", "0 0", "-1 0"),
        ),
        Fix("CVE-2026-63387", ("CVE-2026-63387.patch",)),
        Fix(
            "CVE-2026-63388",
            ("CVE-2026-63388.patch",),
            refused="layout_changed",
            why="bufferevent_private holds a wider address than before: bufferevents that exist are too small for it.",
        ),
    ),
)
