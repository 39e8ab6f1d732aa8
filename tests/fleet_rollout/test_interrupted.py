# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""A rollout that is interrupted at any point is ended by running it again, and pairs stay apart. Needs root.

The points are counted: an undisturbed run says how many events there are, and they are spread evenly over these. In
turn, the main process alone is killed (its workers live on for the task they are at), it is killed with all of its
workers and connections, it gets a Ctrl-C, and a host is rebooted (its processes are new, and its /run is empty). By
default there are four points on four hosts; LIVEPATCH_INTERRUPTIONS=20 makes it twenty on ten hosts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_rollout import timeline
from fleet_rollout.greeters import NEW, OLD, Greeters
from testbed import Fleet

POINTS = int(os.environ.get("LIVEPATCH_INTERRUPTIONS", "4"))
HOSTS = 10 if POINTS > 4 else 4
WAYS = ("main process", "everything", "ctrl-c", "reboot")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Greeters]:
    """Hosts in pairs, but for the last two where there are more than four."""
    with Fleet(hosts=HOSTS, name=f"interrupted-{os.getpid()}") as hosts:
        made = Greeters(hosts, tmp_path_factory.mktemp("interrupted"))
        made.build()
        yield made


@pytest.fixture(scope="module")
def runs(fleet: Greeters, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Rollouts over them."""
    return Runs(fleet, tmp_path_factory.mktemp("runs"))


class Runs:
    """Rollouts over the pairs, each with its timeline."""

    def __init__(self, greeters: Greeters, work: Path) -> None:
        self.greeters, self.work = greeters, work
        self.timelines: list[Path] = []
        self.pairs = [greeters.names[at : at + 2] for at in range(0, max(4, HOSTS - 2), 2)]
        hosts = [
            "%s: {livepatch_redundancy_group: p%d}" % (host, at) for at, pair in enumerate(self.pairs) for host in pair
        ]
        (work / "pairs.yml").write_text("fleet: {hosts: {%s}}\n" % ", ".join(hosts))
        self.events = 0

    def begin(self) -> subprocess.Popen[str]:
        """Start a rollout."""
        inventories = ["-i", str(self.greeters.fleet.place / "inventory.yml"), "-i", str(self.work / "pairs.yml")]
        variables = {"livepatch_patch": str(self.greeters.patch), "livepatch_waves": [1, "50%", "100%"]}
        self.timelines.append(self.work / f"timeline{len(self.timelines)}")
        with (self.work / "said").open("w") as said:
            return subprocess.Popen(
                self.greeters.fleet.run_command(self.greeters.command("rollout", *inventories, **variables)),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env={**self.greeters.environment(), **timeline.environment(self.timelines[-1])},
            )

    def end(self, running: subprocess.Popen[str], status: int) -> None:
        """Wait for a rollout, which must end with this status."""
        assert running.wait(timeout=300) == status, (self.work / "said").read_text()

    def written(self) -> int:
        """How many events the last run has had so far."""
        return self.timelines[-1].read_bytes().count(b"\n") if self.timelines[-1].exists() else 0

    def fresh(self) -> None:
        """Hosts as after a restart: new processes, nobody's turn."""
        for host in self.greeters.names:
            self.greeters.start(host)
            self.greeters.fleet.path(host, "/run/cgl-livepatch/turn").unlink(missing_ok=True)
        self.timelines.clear()

    def facts(self) -> dict[str, Any]:
        """The facts of each host."""
        tree = self.work / "facts"
        command = ["ansible", "all", "-m", "cgl.livepatch.livepatch_facts", "--tree", str(tree)]
        done = self.greeters.fleet.run(command, capture_output=True, env=self.greeters.environment())
        assert done.returncode == 0, done.stdout
        return {
            host: json.loads((tree / host).read_text())["ansible_facts"]["livepatch"] for host in self.greeters.names
        }


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def _interrupt(runs: Runs, running: subprocess.Popen[str], way: str, point: int) -> None:
    if way == "reboot":
        host = runs.greeters.names[point % HOSTS]
        runs.greeters.start(host)
        runs.greeters.fleet.path(host, "/run/cgl-livepatch/turn").unlink(missing_ok=True)
        running.wait(timeout=300)  # whether it noticed depends on the moment
    elif way == "ctrl-c":
        os.killpg(running.pid, signal.SIGINT)
        running.wait(timeout=60)
    else:
        for pid in reversed(_descendants(running.pid)) if way == "everything" else [running.pid]:
            os.kill(pid, signal.SIGKILL)
        running.wait(timeout=60)


@pytest.mark.long
@pytest.mark.parametrize("point", range(POINTS))
def test_run_again_it_ends_with_every_host_as_asked(runs: Runs, point: int) -> None:
    if not runs.events:
        runs.fresh()
        runs.end(runs.begin(), 0)
        runs.events = runs.written()
    runs.fresh()
    assert runs.greeters.all_say() == [OLD] * HOSTS
    running = runs.begin()
    deadline = time.monotonic() + 300
    while runs.written() < runs.events * (point + 1) // (POINTS + 1):
        assert running.poll() is None, (runs.work / "said").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    _interrupt(runs, running, WAYS[point % len(WAYS)], point)

    runs.end(runs.begin(), 0)
    assert runs.greeters.all_say() == [NEW] * HOSTS
    for host, facts in runs.facts().items():
        states = [(patch["state"], patch["verified"]) for process in facts["processes"] for patch in process["patches"]]
        assert states == [("active", True)], host
        turn = runs.greeters.fleet.path(host, "/run/cgl-livepatch/turn")
        assert not turn.exists() or turn.read_text() == "", host
    assert [timeline.most_at_once(runs.timelines, pair) for pair in runs.pairs] == [1] * len(runs.pairs)
