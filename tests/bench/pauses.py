# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""How long threads of a program pause: seen from inside it, by the way of switching and the number of threads.

For each scene, in one run, round by round in turn: nothing at all (the machine's own noise), the one-byte switch in
check mode, which looks at everything and touches nothing (what comes of the tool's use of processors), the one-byte
switch, the stop, and a C program that stops and releases the threads and does nothing else. A round's pause is the
worst lateness of any thread's beat, as the program itself measured it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from patching import Running, compile_program, make_patch
from succeeded import only

from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._patch.content import Patch
from module_utils._process.selection import Selection

HERE = Path(__file__).parent
WAYS = ("nothing", "check mode", "byte", "stop", "floor")
NEW_CODE = "int beat_value(int number) { return number * 3 + 2; }"
# Seconds for which each part of a round lets the program beat, at least: every thread beats several times.
_SETTLE = 0.15
_HOG = "int main(void) { for (;;) ; }"


@dataclass(frozen=True)
class Scene:
    """What is measured: a program of `threads`, each with `depth` calls on its stack, beside `hogs` that use processors
    for each processor there is; `consistency` is that of the stop.
    """

    threads: int
    hogs: int = 0
    depth: int = 0
    consistency: str = "atomic"

    def words(self) -> str:
        """What sets it apart, for the table."""
        parts = [str(self.threads)]
        parts += ["%d hogs a processor" % self.hogs] if self.hogs else []
        parts += ["%d deep" % self.depth] if self.depth else []
        parts += [self.consistency] if self.consistency != "atomic" else []
        return ", ".join(parts)


IDLE = (Scene(1), Scene(16), Scene(128), Scene(1000))
HARDER = (
    Scene(4000),
    Scene(1000, depth=20),
    Scene(1000, consistency="quiescent"),
    Scene(1000, depth=20, consistency="quiescent"),
    Scene(16, hogs=2),
    Scene(1000, hogs=2),
)


@dataclass
class Pauses:
    """Per way, one figure a round, microseconds: the worst pause seen inside, and the stop as who did it measured
    it.
    """

    seen: dict[str, list[int]] = field(default_factory=lambda: {way: [] for way in WAYS})
    said: dict[str, list[int]] = field(default_factory=lambda: {way: [] for way in WAYS})
    load_hold: list[int] = field(default_factory=list)
    load_seen: list[int] = field(default_factory=list)

    def row(self, scene: Scene) -> list[str]:
        """The table's row: medians over rounds, the worst stop, and the ratios of the stop to the floor, round by
        round.
        """
        return [
            scene.words(),
            *("%d" % statistics.median(self.seen[way]) for way in WAYS),
            _ratio(self.seen),
            "%d" % max(self.said["stop"]),
            "%d" % statistics.median(self.said["stop"]),
            "%d" % statistics.median(self.said["floor"]),
            _ratio(self.said),
            "%d" % statistics.median(self.load_hold),
        ]


def _ratio(figures: dict[str, list[int]]) -> str:
    """The stop beside the floor, in each round; the median of that."""
    return "%.2f" % statistics.median(stop / max(floor, 1) for stop, floor in zip(figures["stop"], figures["floor"]))


HEADINGS = [
    "threads",
    "seen: nothing",
    "seen: check mode",
    "seen: byte",
    "seen: stop",
    "seen: floor",
    "stop/floor, seen",
    "stop worst",
    "stop median",
    "floor median",
    "stop/floor, said",
    "load hold",
]


def measure(folder: Path, rounds: int, scenes: tuple[Scene, ...]) -> list[list[str]]:
    """The rows of the table, microseconds but for the ratio."""
    program = compile_program(folder, "heartbeat", (HERE / "heartbeat.c").read_text())
    floor = compile_program(folder, "floor", (HERE / "floor.c").read_text())
    patch = make_patch(folder, program, NEW_CODE, ["beat_value"])
    hog = compile_program(folder, "hog", _HOG)
    rows = []
    for scene in scenes:
        # 1000 threads at 50 ms are 20,000 beats a second: a tenth of one processor
        period = max(1000, scene.threads * 50)
        hogs = [subprocess.Popen([str(hog)]) for _index in range(scene.hogs * (os.cpu_count() or 1))]
        try:
            with Running(program, str(scene.threads), str(period), str(scene.depth)) as running:
                settle = max(_SETTLE, 2.5 * period / 1e6)
                rows.append(_pauses(running, floor, patch, rounds, scene, settle).row(scene))
        finally:
            for each in hogs:
                each.kill()
                each.wait()
    return rows


def _pauses(running: Running, floor: Path, patch: Patch, rounds: int, scene: Scene, settle: float) -> Pauses:
    meant, pauses = Selection(pids=(running.pid,)), Pauses()
    limits = {"byte": Limits(consistency="entry"), "stop": Limits(max_stop=5.0, consistency=scene.consistency)}
    for _round in range(rounds):
        running.ask("reset")
        pauses.load_hold.append(only(load_patch(patch, meant)).hold_us)
        pauses.load_seen.append(_worst(running))
        for way in WAYS:
            time.sleep(settle)
            running.ask("reset")
            time.sleep(settle)
            if way == "floor":
                pauses.said[way].append(int(subprocess.check_output([str(floor), str(running.pid)])))
            elif way != "nothing":
                pretend, wanted = way not in limits, way if way in limits else "byte"
                done = only(activate_patch(patch.manifest.id, meant, limits[wanted], pretend))
                if done.switch != wanted:
                    raise RuntimeError("asked for %s, got %s" % (wanted, done.switch))
                pauses.said[way].append(done.stop_us)
            time.sleep(settle)
            pauses.seen[way].append(_worst(running))
            if way in limits:
                only(deactivate_patch(patch.manifest.id, meant, limits[way]))
        only(unload_patch(patch.manifest.id, meant, 10))
    return pauses


def _worst(running: Running) -> int:
    return int(running.ask("report").split()[0])
