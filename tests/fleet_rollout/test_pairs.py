# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Members of a redundancy group are never worked on at the same time, whatever somebody configures. Needs root."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_rollout import timeline
from fleet_rollout.greeters import NEW, OLD, Greeters

PAIRS = (("node1", "node2"), ("node3", "node4"))
FOUR = "node1,node2,node3,node4"
INVENTORY = """
fleet:
  hosts:
    node1: {livepatch_redundancy_group: left}
    node2: {livepatch_redundancy_group: left}
    node3: {livepatch_redundancy_group: right, livepatch_at_once: 5}
    node4: {livepatch_redundancy_group: right, livepatch_at_once: 5}
"""
PLAY = """
- hosts: "%s"
  gather_facts: false
  strategy: %s
  serial: %s
  vars: %s
  roles:
    - role: cgl.livepatch.rollout
"""


class Pairs:
    """Two pairs among the greeters, and runs over them with what is seen of them."""

    def __init__(self, greeters: Greeters, work: Path) -> None:
        self.greeters, self.work = greeters, work
        self.timelines: list[Path] = []
        (work / "pairs.yml").write_text(INVENTORY)
        self.inventories = ["-i", str(greeters.fleet.place / "inventory.yml"), "-i", str(work / "pairs.yml")]

    def begin(self, *words: str, playbook: str = "rollout", **variables: Any) -> subprocess.Popen[str]:
        """Start a run over the pairs; what it says is read later."""
        variables.setdefault("livepatch_patch", str(self.greeters.patch) if playbook != "rollback" else "fix-greeting")
        command = self.greeters.command(playbook, *self.inventories, *words, **variables)
        if playbook.endswith(".yml"):
            command[1] = playbook
        if "--limit" not in words:
            command += ["--limit", FOUR]
        self.timelines.append(self.work / f"timeline{len(self.timelines)}")
        return subprocess.Popen(
            self.greeters.fleet.run_command(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**self.greeters.environment(), **timeline.environment(self.timelines[-1])},
        )

    def run(self, status: int, *words: str, **variables: Any) -> str:
        """What a run over the pairs says; it must end with `status`."""
        running = self.begin(*words, **variables)
        said = running.communicate(timeout=180)[0]
        assert running.returncode == status, said
        return said

    def own_play(self, status: int, *words: str, strategy: str = "linear", serial: str = '"100%"', **more: Any) -> str:
        """The same with a playbook as a user may have written it."""
        file = self.work / "own.yml"
        file.write_text(PLAY % ("all", strategy, serial, json.dumps(more)))
        return self.run(status, *words, playbook=str(file))

    def apart(self) -> None:
        """Assert that all runs so far kept the members of each pair apart, and that they worked on some."""
        worked = [
            host for pair in PAIRS for host in pair if any(timeline.spans(file).get(host) for file in self.timelines)
        ]
        assert worked
        assert [timeline.most_at_once(self.timelines, list(pair)) for pair in PAIRS if set(pair) & set(worked)] == [
            1 for pair in PAIRS if set(pair) & set(worked)
        ]

    def say(self) -> list[str]:
        """What the greeters of the pairs say."""
        return [self.greeters.says(host) for pair in PAIRS for host in pair]

    def turn(self, host: str) -> str:
        """What a host's turn says."""
        file = self.greeters.fleet.path(host, "/run/cgl-livepatch/turn")
        return file.read_text() if file.exists() else ""


@pytest.fixture
def pairs(greeters: Greeters, tmp_path: Path) -> Iterator[Pairs]:
    """Two pairs without a patch, and nobody at work on them; they are so again after the test."""
    made = Pairs(greeters, tmp_path)
    assert made.say() == [OLD] * 4
    yield made
    for host in FOUR.split(","):
        greeters.fleet.path(host, "/run/cgl-livepatch/turn").unlink(missing_ok=True)
        greeters.start(host)


def test_one_batch_one_wave_and_many_forks_keep_pairs_apart_and_so_does_the_way_back(pairs: Pairs) -> None:
    pairs.own_play(0, "--forks", "50", livepatch_waves=["100%"])
    assert pairs.say() == [NEW] * 4
    assert [pairs.turn(host) for host in FOUR.split(",")] == [""] * 4
    pairs.run(0, playbook="rollback")
    assert pairs.say() == [OLD] * 4
    pairs.apart()


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["free", "host_pinned"])
def test_strategies_in_which_hosts_do_not_wait_are_refused(pairs: Pairs, strategy: str) -> None:
    said = pairs.own_play(2, strategy=strategy)
    assert "A rollout needs the strategy linear, and this play has " + strategy in said
    assert pairs.say() == [OLD] * 4


@pytest.mark.long
def test_a_batch_that_is_not_all_hosts_is_refused_or_keeps_pairs_apart(pairs: Pairs) -> None:
    assert "Remove 'serial' from the play" in " ".join(pairs.own_play(2, serial="2").split())
    assert pairs.say() == [OLD] * 4
    pairs.own_play(0, serial="3", livepatch_on_failure="wave")
    assert pairs.say() == [NEW] * 4
    pairs.apart()


@pytest.mark.long
def test_a_pair_that_cannot_be_known_is_refused(pairs: Pairs, tmp_path: Path) -> None:
    said = pairs.own_play(2, livepatch_redundancy_group="mine")
    assert "is a variable of the play" in " ".join(said.split())
    (tmp_path / "alone.yml").write_text("fleet: {hosts: {node1: {livepatch_redundancy_group: lone}}}\n")
    said = pairs.run(2, "-i", str(tmp_path / "alone.yml"), "--limit", "node1")
    assert "only member of the redundancy group" in " ".join(said.split())
    assert pairs.say() == [OLD] * 4


@pytest.mark.long
def test_a_member_outside_of_the_limit_counts(pairs: Pairs) -> None:
    health = {"command": "test ! -e /srv/sick"}
    sick = pairs.greeters.fleet.path("node2", "/srv/sick")
    sick.write_text("")
    said = pairs.run(2, "--limit", "node1", livepatch_health=health)
    assert "node1 was not worked on, for the sake of its redundancy group: node2 is not healthy" in said
    sick.unlink()
    # Two processes, the patch active in one and only loaded in the other: between states.
    other = pairs.greeters.second("node2")
    for module, words in (("load", f"patch={pairs.greeters.patch}"), ("activate", "patch=fix-greeting")):
        narrowed = "" if module == "load" else ' processes={"pids":[%d]}' % other
        command = ["ansible", "node2", "-m", f"cgl.livepatch.livepatch_{module}", "-a", words + narrowed]
        done = pairs.greeters.fleet.run(command, capture_output=True)
        assert done.returncode == 0, done.stdout
    said = pairs.run(2, "--limit", "node1")
    assert "node2 is between states: patch fix-greeting is active and loaded there" in said
    assert pairs.say()[0] == OLD
    # Finished first, it is no obstacle any more.
    pairs.run(0, "--limit", "node2")
    pairs.run(0, "--limit", "node1")
    assert pairs.say()[:2] == [NEW] * 2
    pairs.greeters.fleet.exec("node2", ["kill", "-9", str(other)])
    pairs.apart()


def test_two_runs_at_once_do_not_meet_in_a_pair(pairs: Pairs) -> None:
    first = pairs.begin(livepatch_waves=["100%"], livepatch_soak_seconds=4)
    _until(lambda: bool(pairs.turn("node1")), first)
    # From the other side, and past the look at the beginning.
    second = pairs.begin("--limit", "node2,node4", livepatch_on_failure="hold", livepatch_waves=["100%"])
    said = second.communicate(timeout=120)[0]
    assert second.returncode == 2, said
    assert "node2 was not worked on, for the sake of its redundancy group: node1 is being worked on" in said
    said = first.communicate(timeout=120)[0]
    # The first may have met the second, and then stops and holds; it never takes anything out for that.
    assert first.returncode in (0, 2), said
    assert pairs.say()[::2] == [NEW] * 2
    pairs.run(0)
    assert pairs.say() == [NEW] * 4
    pairs.apart()


@pytest.mark.long
def test_a_host_that_another_controller_left_is_refused_until_somebody_takes_it_over(pairs: Pairs) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    file = pairs.greeters.fleet.path("node1", "/run/cgl-livepatch/turn")
    file.parent.mkdir(exist_ok=True)
    owner = {"controller": "elsewhere", "boot": "another", "pid": 1, "start_time": 1, "host_boot": boot, "since": 1}
    file.write_text(json.dumps(owner))
    said = " ".join(pairs.run(2).split())
    assert "Another run of cgl.livepatch works on node1 (process 1 on elsewhere)" in said
    said = pairs.run(2, "--limit", "node2")
    assert "node1 is being worked on, or was left half done (process 1 on elsewhere)" in said
    assert pairs.say() == [OLD] * 4
    pairs.run(0, livepatch_take_over=True)
    assert pairs.say() == [NEW] * 4
    assert pairs.turn("node1") == ""


def _until(condition: Any, running: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if running.poll() is not None or time.monotonic() > deadline:
            running.kill()
            pytest.fail(f"it never came to that: {running.communicate()[0]}")
        time.sleep(0.05)
