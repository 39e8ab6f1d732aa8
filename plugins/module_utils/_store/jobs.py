# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Work that children of the service do: each is forked from it, all code loaded, and tells at its end what it did."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from typing import Any, Callable

from .._errors import LivepatchError
from .apply import Applied

# So many at once; the others wait in turn.
MOST = 8


@dataclass(frozen=True)
class Job:
    """One piece of work at process `pid` (0 for all processes); `is_launch`: for the launcher."""

    pid: int
    is_launch: bool
    work: Callable[[], list[Applied]]
    close: Callable[[], None]


@dataclass(frozen=True)
class Result:
    """What a job told: what was done to each process, or the error that kept it from being done."""

    job: Job
    done: list[Applied]
    error: dict[str, str] | None


class Jobs:
    """The jobs that run, and those that wait."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[Job, int, bytearray]] = {}
        self._waiting: list[Job] = []

    def busy_with(self, pid: int) -> bool:
        """Whether a job is at work on a process, or about to be."""
        return any(job.pid == pid for job in [*self._waiting, *(one[0] for one in self._running.values())])

    def descriptors(self) -> list[int]:
        """What to wait for: readable when a job tells something, or has ended."""
        return list(self._running)

    def add(self, job: Job) -> None:
        """Do this as soon as there is room."""
        self._waiting.append(job)
        self._start()

    def read(self, descriptor: int) -> Result | None:
        """What a job has told at its end, None while it is at work."""
        job, child, told = self._running[descriptor]
        piece = os.read(descriptor, 1 << 16)
        if piece:
            told += piece
            return None
        os.close(descriptor)
        os.waitpid(child, 0)
        del self._running[descriptor]
        self._start()
        try:
            plain = json.loads(told.decode("utf-8"))
        except ValueError:
            plain = {"error": LivepatchError("internal", "the child that did the work was killed").as_dict()}
        return Result(job, [Applied(**one) for one in plain.get("done", [])], plain.get("error"))

    def _start(self) -> None:
        while self._waiting and len(self._running) < MOST:
            job = self._waiting.pop(0)
            incoming, outgoing = os.pipe()
            child = os.fork()
            if not child:
                _be_the_child(job, outgoing)
            os.close(outgoing)
            job.close()
            self._running[incoming] = job, child, bytearray()


def _be_the_child(job: Job, outgoing: int) -> None:
    telling = [outgoing]

    def tell_nothing() -> None:
        # A child of ours that never ends (see _ptrace/watchdog.py) must not keep the service waiting for our word.
        if telling:
            os.close(telling.pop())

    os.register_at_fork(after_in_child=tell_nothing)
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        plain: dict[str, Any]
        try:
            plain = {"done": [asdict(one) for one in job.work()]}
        except LivepatchError as error:
            plain = {"error": error.as_dict()}
        except Exception as error:  # what is not foreseen must be told, too, and the service goes on
            plain = {"error": LivepatchError("internal", "%s: %s" % (type(error).__name__, error)).as_dict()}
        raw = json.dumps(plain).encode("utf-8")
        while raw:
            raw = raw[os.write(outgoing, raw) :]
    finally:
        sys.stderr.flush()
        os._exit(0)
