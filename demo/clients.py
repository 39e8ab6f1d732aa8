# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A program: connections to every host that never rest, and a line of JSON every tenth of a second on what they saw.

    python3 -m demo.clients PORT CONNECTIONS HOST=ADDRESS...

A connection asks, waits for the answer, rests, and asks again; it is never opened a second time. A line is
{"at": S, "hosts": {HOST: {"open", "old", "new", "wrong", "lost", "times": [US, ...], "silence": US, "last": ANSWER}}},
where `at` is CLOCK_MONOTONIC and everything but `open` counts since the line before; `silence` is the longest time
between two answers, whatever the connection, and `last` an answer. SIGTERM ends the program.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import os
import random
import selectors
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from . import answers

REST = 0.025  # seconds between an answer and the next question, on the average: it varies by half, so that they mix
PATIENCE = 5.0  # seconds without an answer after which a connection counts as lost
INTERVAL = 0.1  # seconds between two lines


@dataclass(eq=False)
class Client:
    """One connection: whom it is to, what it asks, and when it asked (0 while it rests)."""

    host: str
    socket: socket.socket
    question: str
    asked_at: float = 0.0
    received: bytes = b""


class Clients:
    """All connections, and what they saw since the last report."""

    def __init__(self, port: int, count: int, addresses: dict[str, str]) -> None:
        self.selector = selectors.DefaultSelector()
        self.clients: set[Client] = set()
        self.due: list[tuple[float, int, Client]] = []
        self.number = itertools.count()
        self.hosts = list(addresses)
        self.heard_at = dict.fromkeys(addresses, time.monotonic())
        self.seen = self._nothing()
        questions = itertools.cycle(answers.OLD)
        for turn in range(count):
            for host, address in addresses.items():
                connection = socket.create_connection((address, port), timeout=PATIENCE)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.setblocking(False)
                client = Client(host, connection, next(questions))
                self.clients.add(client)
                self.selector.register(connection, selectors.EVENT_READ, client)
                self._ask_at(time.monotonic() + REST * turn / count, client)

    def run(self) -> None:
        """Ask and report until the program is ended."""
        report_at = time.monotonic() + INTERVAL
        while True:
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                self._ask(heapq.heappop(self.due)[2])
            if now >= report_at:
                report_at += INTERVAL
                self._report(now)
            wake = min(report_at, self.due[0][0] if self.due else report_at)
            for key, _events in self.selector.select(max(0.0, wake - time.monotonic())):
                self._hear(key.data)

    def _ask_at(self, moment: float, client: Client) -> None:
        heapq.heappush(self.due, (moment, next(self.number), client))

    def _ask(self, client: Client) -> None:
        client.asked_at = time.monotonic()
        try:
            client.socket.send(client.question.encode() + b"\n")
        except OSError:
            self._lose(client)

    def _hear(self, client: Client) -> None:
        try:
            got = client.socket.recv(4096)
        except OSError:
            got = b""
        if not got:
            self._lose(client)
            return
        client.received += got
        if not client.received.endswith(b"\n"):
            return
        if not client.asked_at:  # an answer to nothing
            self.seen[client.host]["wrong"] += 1
            client.received = b""
            return
        now = time.monotonic()
        answer = client.received.decode("ascii", "replace").rstrip("\n")
        seen = self.seen[client.host]
        seen[answers.kind(client.question, answer)] += 1
        seen["times"].append(round((now - client.asked_at) * 1e6))
        seen["silence"] = max(seen["silence"], round((now - self.heard_at[client.host]) * 1e6))
        seen["last"] = answer
        self.heard_at[client.host] = now
        client.received, client.asked_at = b"", 0.0
        self._ask_at(now + REST * random.uniform(0.5, 1.5), client)

    def _lose(self, client: Client) -> None:
        if client in self.clients:
            self.clients.remove(client)
            self.selector.unregister(client.socket)
            client.socket.close()
            self.seen[client.host]["lost"] += 1

    def _report(self, now: float) -> None:
        for client in [c for c in self.clients if c.asked_at and now - c.asked_at > PATIENCE]:
            self._lose(client)
        for client in self.clients:
            self.seen[client.host]["open"] += 1
        print(json.dumps({"at": now, "hosts": self.seen}), flush=True)
        self.seen = self._nothing()

    def _nothing(self) -> dict[str, dict[str, Any]]:
        return {
            host: {**dict.fromkeys(("open", "old", "new", "wrong", "lost", "silence"), 0), "times": [], "last": ""}
            for host in self.hosts
        }


def main() -> None:
    """Read the command line; run until SIGTERM, or until nobody reads the reports."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    port, count, *hosts = sys.argv[1:]
    with contextlib.suppress(PermissionError):
        # Who measures should wait for a CPU less than those who are measured.
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    with contextlib.suppress(BrokenPipeError):
        Clients(int(port), int(count), dict(host.split("=", 1) for host in hosts)).run()


if __name__ == "__main__":
    main()
