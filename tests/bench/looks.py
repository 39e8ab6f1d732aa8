# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What it costs to be asked whether anybody is inside a patch: threads, one by one, then all of the memory."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from patching import Running, compile_program, make_patch
from succeeded import only

from module_utils._engine.memory_inside import MemoryScan
from module_utils._engine.operations import load_patch, unload_patch
from module_utils._engine.region import find_regions
from module_utils._engine.threads_inside import anyone_inside
from module_utils._process.process import Process
from module_utils._process.selection import Selection
from module_utils._ptrace.tracer import as_tracer

HERE = Path(__file__).parent
HEADINGS = [
    "threads",
    "heap MiB",
    "hold median us",
    "hold p99 us",
    "hold worst us",
    "threads s",
    "memory s",
    "unload s",
]
SIZES = ((1, 0), (16, 0), (128, 0), (1000, 0), (16, 256), (16, 1024))
NEW_CODE = "int beat_value(int number) { return number * 3 + 2; }"


def measure(folder: Path, rounds: int) -> list[list[str]]:
    """The rows of the table: medians over the rounds, the holds over all threads of all rounds."""
    program = compile_program(folder, "heartbeat", (HERE / "heartbeat.c").read_text())
    patch = make_patch(folder, program, NEW_CODE, ["beat_value"])
    rows = []
    for threads, heap in SIZES:
        with Running(program, str(threads), str(max(1000, threads * 50)), "0", str(heap)) as running:
            meant = Selection(pids=(running.pid,))
            holds: list[int] = []
            spans: list[list[float]] = [[], [], []]
            for _round in range(rounds):
                only(load_patch(patch, meant))
                held, *took = _look(running.pid)
                holds += held
                began = time.perf_counter()
                only(unload_patch(patch.manifest.id, meant, 30))
                for span, figure in zip(spans, [*took, time.perf_counter() - began]):
                    span.append(figure)
        holds.sort()
        figures = [statistics.median(holds), holds[len(holds) * 99 // 100], holds[-1]]
        rows.append(
            [str(threads), str(heap)]
            + ["%d" % figure for figure in figures]
            + ["%.3f" % statistics.median(span) for span in spans]
        )
    return rows


def _look(pid: int) -> tuple[list[int], float, float]:
    """How long each thread was held, microseconds, and what the threads and the memory took, seconds."""
    with Process(pid) as process:
        (region,) = find_regions(process.memory, process.maps())
        everything = [(start, start + size) for start, size, _protection in region.parts]
        began = time.perf_counter()
        looks = as_tracer(lambda: anyone_inside(process, everything, 1.0))
        between = time.perf_counter()
        MemoryScan(process, everything, [], everything).find(looks.tops)
        return looks.held_us, between - began, time.perf_counter() - between
