# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints the benchmark's tables: all, or those named; with --docs they go into docs/figures.md, with pictures.

tables.py [--docs] [ROUNDS] [NAME...]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Callable

import builder
import byte_share
import calls
import latency
import looks
import module_run
import patch_size
import pauses
import processes
import signatures
import starts
from chart import chart

DOCS = Path(__file__).resolve().parents[2] / "docs"
INTRODUCTION = """# Figures

What patching costs the programs that are patched. `make bench` prints these tables on your machine; the ones here are
what one machine said, a small virtual one whose own noise is in the column "nothing". Pauses are the worst lateness of
any thread's beat, as the program itself saw it: with nothing done to it, looked at in check mode (then only the use of
processors by the tool can make it late), switched by one byte, with every thread stopped, and by the floor, a C program
that only stops the threads and lets them go.
"""
Table = tuple[str, list[str], list[list[str]]]


def text(title: str, headings: list[str], rows: list[list[str]]) -> str:
    """A table with aligned columns, as Markdown reads it too."""
    widths = [max(len(row[index]) for row in [headings, *rows]) for index in range(len(headings))]
    lines = [" | ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in [headings, *rows]]
    rule = "-|-".join("-" * width for width in widths)
    return "\n%s\n\n| %s |\n|-%s-|\n%s\n" % (title, lines[0], rule, "\n".join("| %s |" % line for line in lines[1:]))


def _pauses(folder: Path, rounds: int) -> list[Table]:
    title = "Pauses of a program's threads, microseconds: medians of %d rounds" % rounds
    return [(title, pauses.HEADINGS, pauses.measure(folder, rounds, pauses.IDLE))]


def _harder(folder: Path, rounds: int) -> list[Table]:
    title = "The same under harder circumstances: %d rounds" % max(3, rounds // 3)
    return [(title, pauses.HEADINGS, pauses.measure(folder, max(3, rounds // 3), pauses.HARDER))]


def _patch_size(folder: Path, rounds: int) -> list[Table]:
    title = "The stop as the patch grows, 16 threads: medians of %d rounds" % rounds
    return [(title, patch_size.HEADINGS, patch_size.measure(folder, rounds))]


def _processes(folder: Path, rounds: int) -> list[Table]:
    many, facts = processes.measure(folder, max(3, rounds // 3))
    title = "One task on all processes of a shared library, wall time: medians of %d rounds" % max(3, rounds // 3)
    return [(title, processes.HEADINGS, many), ("Facts of such a host", processes.FACTS_HEADINGS, facts)]


def _calls(folder: Path, rounds: int) -> list[Table]:
    return [("A call: medians of %d rounds" % rounds, calls.HEADINGS, calls.measure(folder, rounds))]


def _latency(folder: Path, rounds: int) -> list[Table]:
    turns = max(3, rounds // 3)
    title = "Requests of %d clients to redis-server, %g s each: medians of %d rounds"
    return [(title % (latency.CLIENTS, latency.SECONDS, turns), latency.HEADINGS, latency.measure(folder, turns))]


def _looks(folder: Path, rounds: int) -> list[Table]:
    title = "Looking who is inside a patch, one thread after the other, then in memory"
    return [(title, looks.HEADINGS, looks.measure(folder, rounds))]


def _module_run(folder: Path, _rounds: int) -> list[Table]:
    title = "One module run on a host, a program with 6000 functions"
    return [(title, module_run.HEADINGS, module_run.measure(folder))]


def _signatures(folder: Path, rounds: int) -> list[Table]:
    title = "Checking the signature of a patch file on a host: medians of %d rounds" % rounds
    return [(title, signatures.HEADINGS, signatures.measure(folder, rounds))]


def _starts(folder: Path, rounds: int) -> list[Table]:
    times, memory = starts.measure(folder, rounds)
    title = "Starts of a program on a host with a store: %d each" % (starts.STARTS * rounds)
    return [(title, starts.HEADINGS, times), ("The service of such a host", starts.SERVICE_HEADINGS, memory)]


def _byte_share(folder: Path, _rounds: int) -> list[Table]:
    return [("Functions that can be switched by one byte", byte_share.HEADINGS, byte_share.measure(folder))]


def _builder(folder: Path, _rounds: int) -> list[Table]:
    own = "The builder's own time in a large object: all objects are there already"
    return [
        ("Building a patch for redis", builder.HEADINGS, builder.measure(folder)),
        (own, builder.OWN_HEADINGS, builder.measure_own(folder / "large")),
    ]


TABLES: dict[str, Callable[[Path, int], list[Table]]] = {
    "pauses": _pauses,
    "harder": _harder,
    "patch-size": _patch_size,
    "processes": _processes,
    "calls": _calls,
    "looks": _looks,
    "latency": _latency,
    "module-run": _module_run,
    "signatures": _signatures,
    "starts": _starts,
    "byte-share": _byte_share,
    "builder": _builder,
}


def main() -> None:
    """Measure and print; 10 rounds unless told."""
    words = sys.argv[1:]
    to_docs = words[:1] == ["--docs"]
    words = words[to_docs:]
    rounds = int(words.pop(0)) if words and words[0].isdigit() else 10
    for name in words:
        if name not in TABLES:
            sys.exit("there is no table %s; there are %s" % (name, ", ".join(TABLES)))
    said = ["Measured by `make figures` on %d processors, Linux %s." % (os.cpu_count() or 0, os.uname().release)]
    print(said[0])
    for name in words or TABLES:
        with tempfile.TemporaryDirectory() as folder:
            for table in TABLES[name](Path(folder), rounds):
                said.append(text(*table).replace("\n", "\n## ", 1) if to_docs else text(*table))
                print(said[-1], flush=True)
                if to_docs and table[1] is pauses.HEADINGS:
                    (DOCS / ("figures-%s.svg" % name)).write_text(_picture(*table))
                    said.append("\n![The same as a picture](figures-%s.svg)\n" % name)
    if to_docs:
        (DOCS / "figures.md").write_text(INTRODUCTION + "\n" + "\n".join(said))


def _picture(title: str, headings: list[str], rows: list[list[str]]) -> str:
    seen = [index for index, heading in enumerate(headings) if heading.startswith("seen: ")]
    ways = [headings[index].partition(": ")[2] for index in seen]
    return chart(title, ways, [(row[0], [float(row[index]) for index in seen]) for row in rows])


if __name__ == "__main__":
    main()
