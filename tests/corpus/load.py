# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The load on one program: python -m corpus.load PROGRAM PORT; a line on its input asks for the counts.

A process of its own, so that what patches the program does not stand in the way of what uses it.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from .program import Program
from .programs import PROGRAMS

CONNECTIONS = 4
# Between two requests of one connection, seconds: the machine is shared with the builds.
PAUSE = 0.001


class Counter:
    """What all connections have counted; safe to use from all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = self._lost = 0
        self._first = ""

    def answered(self) -> None:
        """One more request was answered as it must be."""
        with self._lock:
            self._done += 1

    def lost(self, why: str) -> None:
        """One more was not."""
        with self._lock:
            self._lost += 1
            self._first = self._first or why

    def as_json(self) -> str:
        """The fields of running.Count."""
        with self._lock:
            return json.dumps({"done": self._done, "lost": self._lost, "first": self._first})


def keep_asking(program: Program, port: int, counter: Counter) -> None:
    """One connection, made again when it broke, for ever."""
    while True:
        try:
            session = program.connect(port)
            while True:
                session.ask()
                counter.answered()
                time.sleep(PAUSE)
        except Exception as error:  # whatever it is, this request is lost
            counter.lost(repr(error))
            time.sleep(0.05)


def main() -> int:
    """Run until the end of input."""
    name, port = sys.argv[1:]
    counter = Counter()
    for _connection in range(CONNECTIONS):
        threading.Thread(target=keep_asking, args=(PROGRAMS[name], int(port), counter), daemon=True).start()
    for _line in sys.stdin:
        print(counter.as_json(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
