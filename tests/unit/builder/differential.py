# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The differential run: random programs, edited at random, patched while they run, against those of the new source.

A program is asked for a while, and then patched. The program that is built from the new source is brought to the same
state; from there on both must give the same answers, and have the same state in the end. When the patch is taken out,
the process must answer, from the state it then has, like one that never had it.

By hand: `make differential` (PROGRAMS=N, SEED=S), or this file with --programs N --seed S.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    _UNIT = Path(__file__).resolve().parents[1]
    sys.path[:0] = [str(_UNIT.parents[1] / "plugins"), str(_UNIT / "builder"), str(_UNIT / "engine")]

from live import LIMITS, put_in
from patching import Running
from projects import project
from random_programs import random_edit, random_program
from reports import well
from ways import WAYS

from module_utils._build.request import BuildRefused
from module_utils._engine.operations import deactivate_patch

# Fewer than this share patched of the programs that changed would prove nothing.
LEAST_PATCHED = 0.7


@dataclass(frozen=True)
class Ended:
    """How one program ended: "equal", "unchanged" (it compiles to the same code), or the code of the first refusal."""

    seed: int
    way: str
    edits: tuple[str, ...]
    how: str
    functions: int = 0


class Different(AssertionError):
    """A patched process that is not like the program of the new source."""


def try_program(seed: int, folder: Path) -> Ended:
    """Make, edit, build, patch and compare one program. Raises Different, and whatever fails on the way."""
    draw = random.Random(seed)
    program = random_program(draw)
    new, edits = random_edit(draw, program)
    way = draw.choice(list(WAYS))
    files = {**program.files(), "Makefile": WAYS[way].makefile}
    # What is odd in a random program need not be told.
    command = WAYS[way].command.replace("CFLAGS='", "CFLAGS='-w ")
    one = project(folder, files, new.files(), build_command=command, artifact=WAYS[way].artifact)
    try:
        patch = one.patch()
    except BuildRefused as refused:
        if refused.code != "nothing_changed":
            return Ended(seed, way, tuple(edits), refused.code)
        with Running(one.built(False, command=command)) as old, Running(one.built(True, command=command)) as rebuilt:
            compare(old, rebuilt, draw, 40, "said to be unchanged")
        return Ended(seed, way, tuple(edits), "unchanged")
    path = one.deployed()
    with Running(path) as process, Running(one.built(True, command=command)) as rebuilt:
        ask_all(process, draw, 20)
        bring_to_state_of(process, rebuilt)
        meant = put_in(process, patch)
        compare(process, rebuilt, draw, 40, "patched")
        well(deactivate_patch("fix", meant, LIMITS))
        with Running(path) as original:
            bring_to_state_of(process, original)
            compare(process, original, draw, 10, "without the patch again")
    return Ended(seed, way, tuple(edits), "equal", len(patch.manifest.functions))


def question(draw: random.Random) -> str:
    """A question that a random program answers."""
    return "answer %d %d" % (
        draw.randrange(1 << draw.choice((3, 6, 16, 63))),
        draw.randrange(1 << draw.choice((3, 10, 62))),
    )


def ask_all(process: Running, draw: random.Random, count: int) -> None:
    """Let it work for a while."""
    for _number in range(count):
        process.ask(question(draw))


def bring_to_state_of(process: Running, other: Running) -> None:
    """Set each variable of the other process that both have."""
    for part in process.ask("show").split():
        other.ask("set " + part.replace("=", " "))


def compare(one: Running, other: Running, draw: random.Random, count: int, when: str) -> None:
    """The same answers, and the same state in the end."""
    for text in [*(question(draw) for _number in range(count)), "show"]:
        answers = one.ask(text), other.ask(text)
        if answers[0] != answers[1] or not answers[0]:
            raise Different("%s, asked %r: %r is not %r" % (when, text, answers[0], answers[1]))


def run(seeds: list[int], folder: Path, say: bool = False) -> tuple[list[Ended], list[str]]:
    """Try a program for each seed, as many at once as there are processors: how they ended, and what went wrong.

    A program that went wrong is left in the folder that has its seed as name.
    """

    def attempt(seed: int) -> Ended | str:
        place = folder / str(seed)
        try:
            ended = try_program(seed, place)
        except Exception as error:
            return "seed %d, in %s: %s: %s" % (seed, place, type(error).__name__, str(error)[:600])
        shutil.rmtree(place)
        return ended

    ended: list[Ended] = []
    wrong: list[str] = []
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        for result in pool.map(attempt, seeds):
            if isinstance(result, str):
                wrong.append(result)
            else:
                ended.append(result)
            if say and (isinstance(result, str) or result.how not in ("equal", "unchanged")):
                print(result, flush=True)
    return ended, wrong


def told(ended: list[Ended]) -> str:
    """How many ended how."""
    counts = collections.Counter(one.how for one in ended)
    functions = sum(one.functions for one in ended)
    rest = ", ".join("%d %s" % (number, how) for how, number in counts.most_common() if how != "equal")
    return "%d programs: %d patched and equal (%d functions)%s" % (
        len(ended), counts["equal"], functions, "; " + rest if rest else "")  # fmt: skip


def require_enough(ended: list[Ended]) -> None:
    """AssertionError when too few were patched."""
    changed = [one for one in ended if one.how != "unchanged"]
    equal = [one for one in changed if one.how == "equal"]
    assert len(equal) >= LEAST_PATCHED * len(changed) >= LEAST_PATCHED * len(ended) / 2, "only " + told(ended)


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="Random programs, patched live and compared with the rebuilt ones.")
    parser.add_argument("--programs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=None, help="of the first program; the others count from there")
    parser.add_argument("--keep", help="a folder for the programs that fail")
    options = parser.parse_args()
    first = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 30)
    print("seed %d, %d programs" % (first, options.programs), flush=True)
    began = time.monotonic()
    folder = Path(options.keep or tempfile.mkdtemp(prefix="livepatch-differential-"))
    ended, wrong = run(list(range(first, first + options.programs)), folder, say=True)
    took = time.monotonic() - began
    print("seed %d, %s; %d went wrong; %.0f s" % (first, told(ended), len(wrong), took))
    if not wrong:
        require_enough(ended)
        shutil.rmtree(folder)
    return len(wrong) != 0


if __name__ == "__main__":
    sys.exit(main())
