# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What it costs to start a program with its patches, and how soon one that starts otherwise has them.

Prints medians and the worst of 30 starts, milliseconds: from fork to the first line of the program, alone, through the
launcher while nothing is desired, through the launcher with one patch; and, for a program that a shell starts, from
its first line to its first answer by new code. Run as root: PYTHONPATH=plugins:tests/unit/engine:tests/unit/store.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from bed import NEW, Bed, Started

TURNS = 30


def first_line(*command: str) -> float:
    """How long a program takes to its first line."""
    began = time.monotonic()
    with Started(*command) as program:
        program.begun()
        return time.monotonic() - began


def until_new(command: str) -> float:
    """How long a program answers with its old code."""
    with Started(command) as program:
        program.begun()
        began = time.monotonic()
        while program.ask() != NEW:
            time.sleep(0.0005)
        return time.monotonic() - began


def show(name: str, times: list[float]) -> None:
    """One line."""
    print("%-44s median %6.1f ms, worst %6.1f ms" % (name, statistics.median(times) * 1e3, max(times) * 1e3))


def main() -> None:
    """Measure all of it once."""
    with tempfile.TemporaryDirectory() as folder:
        bed = Bed(Path(folder))
        launched = (bed.places.launcher, str(bed.program))
        show("alone", [first_line(str(bed.program)) for _turn in range(TURNS)])
        with bed.service() as service:
            show("through the launcher, nothing desired", [first_line(*launched) for _turn in range(TURNS)])
            bed.keep()
            show("through the launcher, one patch", [first_line(*launched) for _turn in range(TURNS)])
            show("started by a shell: old code for", [until_new(str(bed.program)) for _turn in range(TURNS)])
            text = Path("/proc/%d/status" % service.pid).read_text()
            print("memory of the service: %s kB" % text.split("VmRSS:")[1].split()[0])


if __name__ == "__main__":
    main()
