# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A program of the corpus, running on loopback with a folder of its own, and the load on it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
import time

from .program import Program
from .subject import Subject

START_SECONDS = 20.0
HERE = os.path.dirname(os.path.abspath(__file__))


class Running:
    """The process, and those it makes; a context manager that ends them. Its output goes to `folder`."""

    def __init__(self, subject: Subject, folder: str) -> None:
        self.program, self.folder, self.port = subject.program, folder, _free_port()
        self._log = os.path.join(folder, "log")
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        if self.program.library:
            environment["LD_LIBRARY_PATH"] = os.path.dirname(subject.deployed)
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                self.program.command(subject.deployed, folder, self.port),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env=environment,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def pids(self) -> tuple[int, ...]:
        """The process and all its descendants that run."""
        found = [self._process.pid]
        for pid in found:
            for thread in os.listdir(f"/proc/{pid}/task"):
                # A thread that served a connection may end meanwhile.
                children = f"/proc/{pid}/task/{thread}/children"
                with contextlib.suppress(FileNotFoundError), open(children, encoding="ascii") as stream:
                    found += [int(word) for word in stream.read().split()]
        return tuple(found)

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def log(self) -> str:
        """What it wrote."""
        with open(self._log, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.runs(), f"{self.program.name} ended at its start:\n{self.log()[-3000:]}"
            try:
                session = self.program.connect(self.port)
                session.ask()
                session.close()
                return
            except Exception:  # whatever a description's session raises before the program is ready
                if time.monotonic() > deadline:
                    print(self.log())
                    raise
            time.sleep(0.05)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclasses.dataclass(frozen=True)
class Count:
    """Requests answered as they must be, and lost ones: unanswered, wrongly answered, or their connection broken."""

    done: int
    lost: int
    first: str  # what was the matter with the first that was lost


class Load:
    """Requests from several connections at once, made by a process of their own until the end of the block."""

    def __init__(self, program: Program, port: int) -> None:
        command = [sys.executable, "-m", "corpus.load", program.name, str(port)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=HERE
        )

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def count(self) -> Count:
        """The counts since the start."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Count(**json.loads(self._process.stdout.readline()))

    def wait_for(self, more: int) -> Count:
        """The counts once `more` requests than now have been answered."""
        goal = self.count().done + more
        deadline = time.monotonic() + START_SECONDS
        while True:
            count = self.count()
            if count.done >= goal:
                return count
            assert time.monotonic() < deadline, f"no {more} requests answered in {START_SECONDS} s: {count}"
            time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
