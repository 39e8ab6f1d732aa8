# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of change of code, compiled in many ways: the patched process answers like the program of the new source.

The questions are drawn from a seed that the case's name gives. Each case is tried in a few of the ways, chosen so that
each way comes round equally often; with LIVEPATCH_CASES=all (make cases), each case is tried in each way.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from cases import Case
from code_cases import CODE_CASES, COPIES
from constant_cases import CONSTANT_CASES, VERSION_CASE
from live import answers_like, running_with_room
from patching import Running
from projects import Project, addresses, functions, project, replaced
from ways import MAIN, PLAIN, WAYS, Way

CASES = {**CODE_CASES, **CONSTANT_CASES}
_AT_A_TIME = 2


def questions(name: str, count: int = 150) -> list[str]:
    """Numbers of all sizes, the same for the same name."""
    draw = random.Random(name)
    few = [draw.randrange(-20, 40) for _number in range(count // 2)]
    many = [draw.randrange(-(1 << bits), 1 << bits) for bits in draw.choices(range(6, 63), k=count - len(few))]
    drawn = [*few, *many, 4242, -60000, 60000]
    draw.shuffle(drawn)
    return [str(number) for number in drawn]


def chosen_ways() -> list[tuple[str, str]]:
    """(case, way): a few ways for each case, or all."""
    if os.environ.get("LIVEPATCH_CASES") == "all":
        return [(case, way) for case in CASES for way in WAYS]
    # 4 is prime to the number of ways: neighbours get others, and all come round.
    names = list(WAYS)
    chosen = [
        (case, names[(_AT_A_TIME * number + 4 * step) % len(names)])
        for number, case in enumerate(CASES)
        for step in range(_AT_A_TIME)
    ]
    return sorted({*chosen, *((case, way) for case, (way, _copies) in COPIES.items())})


def made(folder: Path, case: Case, way: Way, **options: object) -> Project:
    """The project of a case, made in a way."""
    files = {**case.before, "main.c": MAIN, "Makefile": way.makefile}
    return project(folder, files, case.after, build_command=way.command, artifact=way.artifact, **options)


def answers_like_the_new(one: Project, command: str, asked: list[str], name: str = "prog") -> None:
    """Patch the original program while it runs, compare it with the new one, and take the patch out again."""
    patch = one.patch()
    with running_with_room(one.deployed(name), patch) as process, Running(one.built(True, name, command)) as new:
        answers_like(process, new, patch, asked)


@pytest.mark.parametrize(("name", "way"), chosen_ways())
def test_answers_like_the_new_program(name: str, way: str, tmp_path: Path) -> None:
    """While the patch is active, each answer is the new program's; taken out, the process goes on."""
    one = made(tmp_path, CASES[name], WAYS[way])
    answers_like_the_new(one, WAYS[way].command, questions(name))


@pytest.mark.parametrize("name", CASES)
def test_replaces_what_changed_and_no_more(name: str, tmp_path: Path) -> None:
    """Each case's functions, and its new names, exactly."""
    case = CASES[name]
    patch = made(tmp_path, case, WAYS[PLAIN]).patch()
    assert (functions(patch), sorted(set(case.new) - set(patch.manifest.new_symbols))) == (sorted(case.replaces), [])


@pytest.mark.parametrize("name", COPIES)
def test_the_compiler_makes_the_copies(name: str, tmp_path: Path) -> None:
    """The cases of copies have them, in the way in which they are always tried."""
    way, copies = COPIES[name]
    one = made(tmp_path, CASES[name], WAYS[way])
    assert set(copies) <= set(addresses(one.built(command=WAYS[way].command)))


VERSION_MAIN = """
#include <stdio.h>
long answer(long x);
long first(long x);
__asm__(".symver first,answer@PARTS_1");
long both(long x);
int main(void)
{
    long x;
    puts("ready");
    fflush(stdout);
    while (scanf("%ld", &x) == 1) {
        printf("%ld %ld %ld\\n", answer(x), first(x), both(x));
        fflush(stdout);
    }
    return 0;
}
"""


@pytest.mark.parametrize("way", [way for way in WAYS if "library" in way])
def test_versions_of_a_symbol(way: str, tmp_path: Path) -> None:
    """A library with two versions of one function, each of which is changed, and names that it keeps to itself."""
    files = {**VERSION_CASE.before, "main.c": VERSION_MAIN, "Makefile": WAYS[way].makefile}
    chosen = WAYS[way]
    one = project(tmp_path, files, VERSION_CASE.after, build_command=chosen.command, artifact=chosen.artifact)
    assert functions(one.patch()) == VERSION_CASE.replaces
    answers_like_the_new(one, chosen.command, questions("versions"))


SEVERAL = """
all: prog libparts.so tool
prog: main.o prog-work.o prog-work-again.o
\t$(CC) $(CFLAGS) -o $@ $^
tool: main.o tool-work.o prog-work-again.o
\t$(CC) $(CFLAGS) -o $@ $^
libparts.so: lib-work.o
\t$(CC) $(CFLAGS) -shared -o $@ $^
prog-%.o: %.c
\t$(CC) $(CFLAGS) -DPART=1 -c -o $@ $<
prog-work-again.o: work.c
\t$(CC) $(CFLAGS) -DPART=5 -DAGAIN -c -o $@ $<
tool-%.o: %.c
\t$(CC) $(CFLAGS) -DPART=2 -c -o $@ $<
lib-%.o: %.c
\t$(CC) $(CFLAGS) -DPART=3 -fPIC -c -o $@ $<
"""
SEVERAL_WORK = """
static long seen;
__attribute__((noinline)) static long part(long x) { seen += PART; return x * PART + seen; }
#ifdef AGAIN
long again(long x) { return part(x) + 1; }
#else
long again(long x);
long answer(long x)
{
    return part(x) * 3
#if PART == 3
        - seen;
#else
        + again(x);
#endif
}
#endif
"""


@pytest.mark.parametrize(("artifact", "replaces"), [("prog", ["part", "part"]), ("tool", ["part", "part"])])
def test_one_source_in_several_artifacts(artifact: str, replaces: list[str], tmp_path: Path) -> None:
    """A source is compiled four times with other definitions, twice of them for this artifact: these are replaced."""
    files = {"main.c": MAIN, "work.c": SEVERAL_WORK, "Makefile": SEVERAL}
    after = {"work.c": SEVERAL_WORK.replace("return x * PART + seen", "return x * (PART + 10) - seen")}
    one = project(tmp_path, files, after, build_command="make CFLAGS='-O2 -fno-ipa-ra'", artifact=artifact)
    assert functions(one.patch()) == replaces
    answers_like_the_new(one, "make CFLAGS='-O2 -fno-ipa-ra'", questions(artifact), artifact)


def test_only_the_other_artifact_changes(tmp_path: Path) -> None:
    """A line that only the library's compilation reads: the library has a patch, the program has nothing to change."""
    files = {"main.c": MAIN, "work.c": SEVERAL_WORK, "Makefile": SEVERAL}
    one = project(tmp_path, files, {"work.c": SEVERAL_WORK.replace("- seen;", "- seen * 2;")}, artifact="libparts.so")
    assert functions(one.patch()) == ["answer"]
    assert [code for code, _symbol in one.refusals(artifact="prog")] == ["nothing_changed"]


def test_room_at_entries_is_room(tmp_path: Path) -> None:
    """The list of places that -fpatchable-function-entry keeps for tracers branches nowhere: a branch fits there."""
    way = Way("gcc", "-O2 -fcf-protection -fpatchable-function-entry=8")
    patch = made(tmp_path, CASES["recursion"], way).patch()
    assert replaced(patch, "walk").overwritable >= 12
