# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What the demonstration does, step by step."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from testbed import Fleet, state

from . import answers, claims, playbook, table
from .picture import Picture
from .playbook import HERE, DemoError
from .screen import Screen
from .traffic import Sum, Traffic

HOSTS = 3
CONNECTIONS = 16  # to each host
PORT = 7000
PATCH = "hide-cards"
BUILD = HERE.parent / ".build"
LOG = BUILD / "log" / "demo.log"


class Demo:
    """The demonstration in progress: its hosts, its clients, and what it found out."""

    def __init__(self, screen: Screen, check: Callable[[], None], fleet: Fleet, work: Path) -> None:
        self.screen = screen
        self.check = check
        self.fleet = fleet
        self.work = work
        self.moments: dict[str, float] = {}
        self.claims: list[claims.Claim] = []

    def deploy(self) -> None:
        """The server on every host."""
        self.screen.step("The server is compiled, stripped and started on each, as user desk")
        self.play("deploy", self.check, demo_server=str(HERE / "server"), demo_port=PORT)

    def begin_traffic(self, traffic: Traffic) -> None:
        """Clients, which hear more than they should."""
        self.traffic = traffic
        self.screen.step(f"{CONNECTIONS} clients connect to each host, and from now on ask without end")
        self.settle("old")
        self.screen.detail(f"asked for ada, a host says:  {answers.OLD['ada']}")
        self.moments["before"] = time.monotonic()

    def build(self) -> None:
        """The patch, from the diff, for the stripped program."""
        self.screen.step("livepatch_build makes a patch of demo/fix.diff for the stripped program")
        self.play("build", self.check, demo_server=str(HERE / "server"), demo_diff=str(HERE / "fix.diff"))
        built = self.read("build")
        for function in built["functions"]:
            sizes = f"{function['size_old']} bytes, now {function['size_new']}"
            self.screen.detail(f"replaces {function['name']} ({sizes}); adds {', '.join(built['new_symbols'])}")
        self.screen.detail(f"fits build-id {built['build_id']}, and nothing else")
        self.claims.append(claims.of_settled("before", "old", self.traffic.over(self.moments["before"])))

    def roll_out(self) -> None:
        """Host by host, while the clients go on."""
        self.screen.step("Role rollout, host by host over SSH: load the patch, switch it on, read it back")
        self.screen.detail(f"{self.traffic.hosts[-1]} is told to stop all threads, to show the other way to switch")
        self.moments["going in"] = time.monotonic()
        self.play_pictured("rollout", "new", demo_consistency={self.traffic.hosts[-1]: "atomic"})
        self.screen.detail(f"asked for ada, a host says:  {answers.NEW['ada']}")
        reports = [report for report in self.traffic.reports if report["at"] > self.moments["going in"]]
        self.claims.append(claims.of_order(reports, self.traffic.hosts))

    def look(self) -> None:
        """The facts, while the patch is active."""
        begin = time.monotonic()
        self.screen.step("livepatch_facts: what is in the processes, read from their memory")
        self.play("facts", self.check, demo_facts="active")
        self.claims.append(claims.of_settled("with the patch", "new", self.traffic.over(begin)))
        active = {
            host: table.HostResult(self.read(f"active-{host}"), deactivate=[], **self.read(f"rollout-{host}"))
            for host in self.traffic.hosts
        }
        self.claims.append(claims.of_facts(active, PATCH))
        self.screen.table(table.processes(active, PATCH))
        self.screen.detail("stop: all threads, to switch (byte: nobody); held: one thread alone, to load")

    def roll_back(self) -> None:
        """Out again, by the other way to switch."""
        self.screen.step("The patch is switched off and unloaded again, the last host first")
        self.moments["going out"] = time.monotonic()
        self.play_pictured("rollback", "old")
        end = time.monotonic()
        self.play("facts", self.check, demo_facts="empty")
        self.claims.append(claims.of_settled("without it again", "old", self.traffic.over(end)))
        results = {
            host: table.HostResult(
                self.read(f"active-{host}"),
                deactivate=self.read(f"rollback-{host}")["deactivate"],
                **self.read(f"rollout-{host}"),
            )
            for host in self.traffic.hosts
        }
        empty = {host: self.read(f"empty-{host}") for host in self.traffic.hosts}
        self.claims += [claims.of_stops(results), claims.of_emptiness(empty, self.traffic.hosts)]

    def conclude(self) -> None:
        """What the clients saw."""
        self.screen.step("What the clients saw (silence: how long nobody got an answer)")
        moments = [*self.moments.values(), math.inf]
        phases = {name: self.traffic.over(*span) for name, span in zip(self.moments, zip(moments, moments[1:]))}
        self.screen.table(table.clients(phases))
        self.screen.detail("servers, clients and Ansible share this machine; waiting for a CPU is in there")
        self.claims = [*claims.of_clients(phases, CONNECTIONS), *self.claims]

    def play_pictured(self, name: str, wanted: str, **variables: Any) -> None:
        """Run a playbook under the picture of the traffic, until all hosts give answers of the WANTED kind."""
        picture = Picture(self.screen, self.traffic)

        def update() -> None:
            self.check()
            picture.update()

        self.play(name, update, **variables)
        self.settle(wanted, update)
        picture.finish()

    def play(self, name: str, draw: Callable[[], None], **variables: Any) -> None:
        """Run a playbook with what all of them know."""
        common = {"demo_work": str(self.work), "demo_patch": PATCH}
        playbook.run(self.fleet, name, {**common, **variables}, self.work, LOG, draw)

    def settle(self, wanted: str, draw: Callable[[], None] | None = None) -> None:
        """Wait until every host gives answers of the WANTED kind only. Raises DemoError after ten seconds."""

        def settled(seen: dict[str, Sum]) -> bool:
            return all(0 < getattr(one, wanted) == one.answers for one in seen.values())

        if not self.traffic.wait(settled, 10, draw or self.check):
            raise DemoError(f"not every host gives {wanted} answers, and only these, after ten seconds")

    def read(self, name: str) -> Any:
        """What a playbook kept under that name."""
        return json.loads((self.work / f"{name}.json").read_text(encoding="utf-8"))


def run(screen: Screen, check: Callable[[], None]) -> bool:
    """The whole demonstration; whether all that it claims was true. CHECK is called often, and may raise."""
    screen.step("Three hosts come up: namespaces of this machine, each with its own SSH server")
    with contextlib.ExitStack() as stack:
        fleet = stack.enter_context(Fleet(HOSTS, name=f"demo-{os.getpid()}"))
        demo = Demo(screen, check, fleet, stack.enter_context(_workplace(fleet.name)))
        LOG.parent.mkdir(parents=True, exist_ok=True)
        LOG.write_text("", encoding="utf-8")
        check()
        demo.deploy()
        demo.begin_traffic(stack.enter_context(Traffic(fleet, PORT, CONNECTIONS)))
        demo.build()
        demo.roll_out()
        demo.look()
        demo.roll_back()
        demo.conclude()
        screen.step("Clients, servers and hosts are taken down")
    screen.say("")
    for claim in demo.claims:
        verdict = screen.paint("true ", "green") if claim.holds else screen.paint("FALSE", "red")
        screen.detail(f"{verdict}  {claim.text}")
    return all(claim.holds for claim in demo.claims)


@contextlib.contextmanager
def _workplace(name: str) -> Iterator[Path]:
    """A directory for what is built, gone afterwards; what killed demonstrations left goes, too."""
    for left in (BUILD / "demo").glob("*"):
        if not state.alive(state.folder(left.name)):
            shutil.rmtree(left, ignore_errors=True)
    work = BUILD / "demo" / name
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
