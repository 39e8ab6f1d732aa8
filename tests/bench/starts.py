# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What it costs to start a program with its patches, and how soon one that starts otherwise has them.

All times are from fork: to the first line of the program; and, for one that is started without the launcher, to its
first answer by new code.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from bed import NEW, Bed, Started

STARTS = 3
HEADINGS = ["a program that is started", "median, ms", "worst, ms"]
SERVICE_HEADINGS = ["the service", "resident memory, MB", "most so far, MB"]


def measure(folder: Path, rounds: int) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of both tables: of STARTS starts a round each, and of the service's memory before and after them."""
    bed = Bed(folder)
    program = str(bed.program)
    launched = (bed.places.launcher, program)
    turns = range(STARTS * rounds)
    rows = [_row("alone, to its first line", [_first_line(program) for _turn in turns])]
    with bed.service() as service:
        memory = [_memory("with nothing desired", service.pid)]
        times = [_first_line(*launched) for _turn in turns]
        rows.append(_row("through the launcher, nothing desired, to its first line", times))
        bed.keep()
        times = [_first_line(*launched, patched=True) for _turn in turns]
        rows.append(_row("through the launcher, one patch, to its first line", times))
        rows.append(_row("without the launcher, to its new code", [_until_new(program) for _turn in turns]))
        memory.append(_memory("after %d starts" % (3 * len(turns)), service.pid))
    return rows, memory


def _first_line(*command: str, patched: bool = False) -> float:
    """Seconds to the first line; raises RuntimeError where a program that should be patched by then is not."""
    began = time.monotonic()
    with Started(*command) as program:
        _pid, first, _now = program.begun()
        took = time.monotonic() - began
        if patched and first != NEW:
            raise RuntimeError("the program began without its patch")
        return took


def _until_new(command: str) -> float:
    """Seconds until the first answer by new code."""
    began = time.monotonic()
    with Started(command) as program:
        program.begun()
        while program.ask() != NEW:
            time.sleep(0.0005)
        return time.monotonic() - began


def _row(name: str, times: list[float]) -> list[str]:
    return [name, "%.1f" % (statistics.median(times) * 1e3), "%.1f" % (max(times) * 1e3)]


def _memory(name: str, pid: int) -> list[str]:
    text = Path("/proc/%d/status" % pid).read_text()
    return [name, *("%.1f" % (int(text.split(key + ":")[1].split()[0]) / 1024) for key in ("VmRSS", "VmHWM"))]
