# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the clients report, kept from the first answer to the last, and what it comes to over a time."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from testbed import Fleet

from .playbook import HERE, DemoError, die_with_us, end


@dataclass(frozen=True)
class Sum:
    """What the clients of one host saw over a time; `times` are the answer times in ms, sorted.

    `silence`, ms: how long, at the worst, not one of the host's connections got an answer.
    """

    open: int
    old: int
    new: int
    wrong: int
    lost: int
    times: Sequence[float]
    silence: float
    last: str

    @property
    def answers(self) -> int:
        """All answers."""
        return self.old + self.new + self.wrong

    def percentile(self, share: float) -> float:
        """The answer time, ms, that the SHARE (0 to 1) of the answers does not exceed; nan without answers."""
        if not self.times:
            return math.nan
        return self.times[max(0, math.ceil(share * len(self.times)) - 1)]


class Traffic:
    """The clients' program, running, and its reports. As a context manager it ends them."""

    def __init__(self, fleet: Fleet, port: int, connections: int) -> None:
        self.hosts = [host.name for host in fleet.hosts]
        self.reports: list[dict[str, Any]] = []
        self._ending = False
        addresses = [f"{host.name}={host.address}" for host in fleet.hosts]
        program = [sys.executable, "-m", "demo.clients", str(port), str(connections), *addresses]
        self._process = subprocess.Popen(
            die_with_us(fleet.run_command(program)),
            cwd=HERE.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Traffic:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        end(self._process)
        self._reader.join(5)

    def check(self) -> None:
        """Raises DemoError when the clients have ended by themselves."""
        if self._process.poll() is not None and not self._ending:
            assert self._process.stderr is not None
            said = self._process.stderr.read().strip().splitlines()
            raise DemoError(f"the clients ended: {said[-1] if said else self._process.returncode}")

    def over(self, begin: float, stop: float = math.inf) -> dict[str, Sum]:
        """What each host's clients saw in the reports between two moments of CLOCK_MONOTONIC, seconds."""
        reports = [report for report in tuple(self.reports) if begin < report["at"] <= stop]
        return {host: _sum([report["hosts"][host] for report in reports]) for host in self.hosts}

    def wait(self, condition: Callable[[dict[str, Sum]], bool], seconds: float, draw: Callable[[], None]) -> bool:
        """Wait until CONDITION holds for what was seen in a whole half second; whether it did within SECONDS."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            reports = self.reports
            if len(reports) >= 5 and condition(self.over(reports[-1]["at"] - 0.45)):
                return True
            draw()
            time.sleep(0.05)
        return False

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.reports.append(json.loads(line))


def _sum(seen: list[dict[str, Any]]) -> Sum:
    times = sorted(time_us / 1e3 for one in seen for time_us in one["times"])
    counts = {kind: sum(one[kind] for one in seen) for kind in ("old", "new", "wrong", "lost")}
    last = next((one["last"] for one in reversed(seen) if one["last"]), "")
    silence = max((one["silence"] for one in seen), default=0) / 1e3
    return Sum(open=seen[-1]["open"] if seen else 0, times=times, silence=silence, last=last, **counts)
