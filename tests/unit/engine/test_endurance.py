# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Load, activate, deactivate, unload, again and again, on a server under load: nothing is lost, and nothing is left.

Here some cycles; `make endurance` makes 10,000 (LIVEPATCH_CYCLES). Both ways to switch, in turn.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from deaths import FIXED, Served, compile_server, served
from patching import livepatch_mappings, make_patch
from snapshots import descriptors, snapshot, tracers

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Outcome, Report
from module_utils._patch.content import Patch
from module_utils._process.selection import Selection

CYCLES = int(os.environ.get("LIVEPATCH_CYCLES", "20"))
# After so many cycles the program has all that it will ever have: pages of its text, buffers, page tables.
WARM_UP = min(10, CYCLES // 5)
# How much more memory the program may have at the end, KiB: pages that it touched meanwhile by itself.
MOST_GROWTH = {"VmRSS": 256, "RssAnon": 256, "VmData": 0, "VmSize": 0, "VmPTE": 64, "VmLck": 0, "VmSwap": 256}
# After how many cycles it is said that the work goes on.
_TOLD = 1000
MAX_STOP = float(os.environ.get("LIVEPATCH_MAX_STOP_MS", "2000")) / 1e3
WAYS = {"byte": Limits(MAX_STOP, 30.0, "entry"), "stop": Limits(MAX_STOP, 30.0, "atomic")}


@dataclass
class Times:
    """What the cycles took, microseconds, by what it was: how long everybody stood still, and one thread was held."""

    taken: dict[str, list[int]] = field(default_factory=dict)

    def note(self, name: str, microseconds: int) -> None:
        """Add one figure."""
        self.taken.setdefault(name, []).append(microseconds)

    def histogram(self) -> str:
        """For each name, how many figures lie between powers of two, and the middle, the 99th percentile, the worst."""
        lines = []
        for name, figures in self.taken.items():
            figures = sorted(figures)
            lines.append(
                "%s: %d, median %d us, p99 %d us, worst %d us"
                % (name, len(figures), figures[len(figures) // 2], figures[len(figures) * 99 // 100], figures[-1])
            )
            counts = Counter(figure.bit_length() for figure in figures)
            for bits in range(min(counts), max(counts) + 1):
                signs = "#" * -(-60 * counts[bits] // len(figures))
                lines.append("  %8d - %8d us %6d %s" % (1 << bits >> 1, (1 << bits) - 1, counts[bits], signs))
        return "\n".join(lines)


def test_cycles_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = compile_server(tmp_path)
    patch = make_patch(tmp_path, program, FIXED, ["first", "second"])
    times, began = Times(), time.monotonic()
    with served(program) as running:
        before = memory = None
        for cycle in range(CYCLES):
            if cycle == WARM_UP:
                before, memory = snapshot(running.pid), _memory(running.pid)
            _cycle(running, patch, ("byte", "stop")[cycle % 2], times)
            if (cycle + 1) % _TOLD == 0:
                with capsys.disabled():
                    print("\n%d of %d cycles in %.0f s" % (cycle + 1, CYCLES, time.monotonic() - began), flush=True)
            if before and cycle % 10 == 0:
                now = snapshot(running.pid)
                assert (now.code, now.descriptors) == (before.code, before.descriptors), cycle
        assert running.is_serving()
        requests, wrong = running._counts()
        after = snapshot(running.pid)
        growth = {name: now - memory[name] for name, now in _memory(running.pid).items()} if memory else {}
        assert running.server.alive()
        assert running.clients.alive()
    with capsys.disabled():
        print(  # the figures are what this is for
            "\n%d cycles in %.0f s, %d requests, %d wrong or lost; growth since cycle %d, KiB: %s\n%s"
            % (CYCLES, time.monotonic() - began, requests, wrong, WARM_UP, growth, times.histogram())
        )
    assert after == before
    assert wrong == 0
    assert {name: more for name, more in growth.items() if more > MOST_GROWTH[name]} == {}
    assert len(times.taken["stop: activate"]) >= CYCLES // 2


def _cycle(running: Served, patch: Patch, way: str, times: Times) -> None:
    """One cycle, after which nothing is there; what answers is the patch while it is active, else the program."""
    meant, limits = Selection(pids=(running.pid,)), WAYS[way]
    loaded = _done(load_patch(patch, meant), "loaded")
    times.note("one thread held: load", loaded.hold_us)
    for change, state, answers in ((activate_patch, "active", [100, 200]), (deactivate_patch, "loaded", [1, 2])):
        done = _done(change("fix", meant, limits), state)
        assert running.answers() == answers
        assert done.switch == way or (way == "byte" and done.switch == "stop" and done.stop_us), done
        times.note("%s: %s" % (done.switch, change.__name__.partition("_")[0]), done.stop_us)
    unloaded = _done(unload_patch("fix", meant, 30.0), "absent")
    times.note("one thread held: unload", unloaded.hold_us)
    assert livepatch_mappings(running.pid) == []
    assert not [name for name in descriptors(running.pid).values() if "livepatch" in name]
    assert tracers(running.pid) == {"0"}


def _done(report: Report, state: str) -> Outcome:
    (outcome,) = report.outcomes
    assert (outcome.error, outcome.state, outcome.changed, outcome.verified) == (None, state, True, True)
    return outcome


def _memory(pid: int) -> dict[str, int]:
    """The figures of /proc/PID/status that may not grow, KiB."""
    status = Path("/proc/%d/status" % pid).read_text()
    return {
        name: int(found[1]) for name in MOST_GROWTH for found in [re.search(name + r":\s+(\d+) kB", status)] if found
    }
