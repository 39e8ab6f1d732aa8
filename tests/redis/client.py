# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A connection to a redis server over TCP, as small as the proof needs it (the protocol is RESP2)."""

from __future__ import annotations

import re
import socket


class Refused(Exception):
    """The server answered a command with an error; the text is the server's."""


class Client:
    """One connection to 127.0.0.1; ConnectionError when the server ends it, OSError when there is none."""

    def __init__(self, port: int, timeout: float = 30.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def call(self, *words: bytes | str | int) -> str | bytes | None:
        """The answer to one command: text, or bytes if a bulk string. Raises Refused for an error."""
        plain = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in plain)
        self._socket.sendall(b"*%d\r\n%s" % (len(plain), parts))
        return self._answer()

    def info(self, section: str) -> dict[str, str]:
        """The fields of one section of INFO."""
        answer = self.call("INFO", section)
        assert isinstance(answer, bytes)
        return dict(re.findall(r"^(\w+):(.*?)\r?$", answer.decode(), re.MULTILINE))

    def connections(self) -> list[dict[str, str]]:
        """The fields of CLIENT LIST, one entry for each open connection."""
        answer = self.call("CLIENT", "LIST", "TYPE", "normal")
        assert isinstance(answer, bytes)
        return [dict(field.split("=", 1) for field in line.split()) for line in answer.decode().splitlines()]

    def _answer(self) -> str | bytes | None:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind in (b"+", b":"):
            return rest.decode()
        if kind == b"-":
            raise Refused(rest.decode())
        if kind != b"$":
            raise AssertionError(f"an answer of a kind that no command here has: {line!r}")
        if rest == b"-1":
            return None
        bulk = self._stream.read(int(rest) + 2)
        if len(bulk) != int(rest) + 2:
            raise ConnectionResetError("the server closed the connection within an answer")
        return bulk[:-2]

    def _line(self) -> bytes:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection instead of answering")
        return line[:-2]
