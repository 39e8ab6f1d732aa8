# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints the tables of the benchmark: `make bench`, or tests/bench/run [ROUNDS]."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import byte_share
import module_run
import pauses


def table(title: str, headings: list[str], rows: list[list[str]]) -> str:
    """A table with aligned columns, as Markdown reads it too."""
    widths = [max(len(row[index]) for row in [headings, *rows]) for index in range(len(headings))]
    lines = [" | ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in [headings, *rows]]
    rule = "-|-".join("-" * width for width in widths)
    return "\n%s\n\n| %s |\n|-%s-|\n%s\n" % (title, lines[0], rule, "\n".join("| %s |" % line for line in lines[1:]))


def main() -> None:
    """Measure and print; ROUNDS (10) rounds each."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory() as folder:
        rows = pauses.measure(Path(folder), rounds)
        runs = module_run.measure(Path(folder))
        shares = byte_share.measure(Path(folder))
    title = "Pauses of a program's threads, microseconds: medians of %d rounds; %d processors, Linux %s" % (
        rounds,
        os.cpu_count() or 0,
        os.uname().release,
    )
    print(table(title, pauses.HEADINGS, rows))
    print(table("One module run on a host, a program with 6000 functions", module_run.HEADINGS, runs))
    print(table("Functions that can be switched by one byte", byte_share.HEADINGS, shares))


if __name__ == "__main__":
    main()
