# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A redis server on loopback with nothing kept on disk, and a redis-benchmark that never pauses."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from typing import Callable

from client import Client

CLIENTS = 50
START_SECONDS = 20.0


class Server:
    """One server process; a context manager that ends it. Output and log go to `directory`."""

    def __init__(self, program: str, directory: str) -> None:
        self.port = _free_port()
        self._log = os.path.join(directory, "redis.log")
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
            "dir": directory,
        }
        words = [word for name, value in settings.items() for word in ("--" + name, value)]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen([program, *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.pid = self._process.pid
        try:
            _wait_until(self._answers, "the server to answer", self.log)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None

    def wait(self) -> int:
        """The exit status of a server that is ending by itself (negative: the signal)."""
        return self._process.wait(START_SECONDS)

    def log(self) -> str:
        """What the server wrote."""
        with open(self._log, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def stop(self) -> None:
        """End the process, by SIGKILL if SIGTERM does not."""
        _end(self._process)

    def _answers(self) -> bool:
        if not self.runs():
            raise AssertionError(f"the server ended at its start:\n{self.log()}")
        try:
            with Client(self.port) as client:
                return client.call("PING") == "PONG"
        except ConnectionRefusedError:
            return False


class Benchmark:
    """CLIENTS connections that SET 200-byte values from now until `stop`.

    redis-benchmark ends with status 1 at the first error answer and the first broken connection, and it never
    connects again. So: the same process, with the same connections (their ids are never given twice), means
    none of either.
    """

    def __init__(self, program: str, port: int, directory: str) -> None:
        self._port = port
        self._output = os.path.join(directory, "benchmark.log")
        words = f"-h 127.0.0.1 -p {port} -c {CLIENTS} -n 2000000000 -t set -d 200 -r 1000 -q".split()
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen([program, *words], stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            _wait_until(lambda: len(self._connections()) == CLIENTS, "redis-benchmark to connect", self.log)
        except BaseException:
            self.stop()
            raise
        self._first = self._connections()
        self._counted = self.requests()

    def __enter__(self) -> Benchmark:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def requests(self) -> int:
        """How many SETs the server has answered."""
        return self._statistics()["calls"]

    def disturbances(self) -> list[str]:
        """What the clients have noticed since the start: every error, lost connection and standstill."""
        found = []
        if self._process.poll() is not None:
            found.append(f"redis-benchmark ended with status {self._process.returncode}: {self.log()[-500:]}")
        if re.search("error|closed", self.log(), re.IGNORECASE):
            found.append(f"redis-benchmark wrote: {self.log()[-500:]}")
        now = self._connections()
        if now != self._first:
            found.append(f"connections lost: {sorted(self._first - now)}, new: {sorted(now - self._first)}")
        statistics = self._statistics()
        for kind in ("rejected_calls", "failed_calls"):
            if statistics[kind]:
                found.append(f"SET: {statistics[kind]} {kind}")
        if statistics["calls"] <= self._counted:
            found.append("no request was answered since the last look")
        self._counted = statistics["calls"]
        return found

    def log(self) -> str:
        """What redis-benchmark wrote."""
        with open(self._output, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def stop(self) -> None:
        """End the load."""
        _end(self._process)

    def _connections(self) -> set[int]:
        with Client(self._port) as client:
            return {int(one["id"]) for one in client.connections() if one["cmd"] == "set"}

    def _statistics(self) -> dict[str, int]:
        with Client(self._port) as client:
            fields = client.info("commandstats").get("cmdstat_set", "calls=0,rejected_calls=0,failed_calls=0")
        return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)(?:,|$)", fields)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until(true: Callable[[], bool], what: str, log: Callable[[], str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {START_SECONDS:.0f} s for {what}:\n{log()[-2000:]}")
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
