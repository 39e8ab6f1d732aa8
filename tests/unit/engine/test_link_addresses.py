# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects linked for an address of their own, as prelink(8) makes them, wherever they come to lie in the end.

What is added to a link-time address is then zero for several objects of a process, or negative for one.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from patching import Running, compile_program, make_patch, run
from reports import well
from snapshots import snapshot

from module_utils._elf.header import parse_header
from module_utils._engine.activate import Limits
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._process.objects import mapped_objects
from module_utils._process.process import Process
from module_utils._process.selection import Selection

CODE = r"""
#include <stdlib.h>
static volatile int counter = 40;
int table[4] = {1, 2, 3, 4};
__attribute__((noinline, used)) static int twice(int x) { return 2 * x + counter; }
__attribute__((noinline, noipa)) int answer(const char *text) { return twice(atoi(text)); }
"""
MAIN = r"""
#include <stdio.h>
int answer(const char *text);
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", answer(line));
}
"""
# Its own function and data, an IFUNC of the C library, and functions that nothing in the process has imported.
FIXED = r"""
#include <stdlib.h>
#include <string.h>
#include <search.h>
extern int twice(int), counter, table[4];
static const char *const names[] = {"one", "three"};
static int compare(const void *one, const void *two) { return *(const int *)one - *(const int *)two; }
int answer(const char *text) {
    char copy[100];
    int numbers[3] = {9, 4, 6}, key = 6;
    size_t count = 3;
    memset(copy, 0, sizeof copy);
    strncpy(copy, text, 99);
    qsort(numbers, 3, sizeof *numbers, compare);
    if (!lfind(&key, numbers, &count, sizeof *numbers, compare)) return -1;
    return 1000 * twice(atoi(copy)) + counter + 100 * table[3] + numbers[0] + (int)strlen(names[copy[0] == '5']);
}
"""
HIGH, HIGHEST = "0x3000000000", "0x7ffe00000000"
# Flags for the program; of the library that holds the code, if there is one, and of another one that comes first, the
# address; what must be added to link-time addresses of the patched object, where that is known.
KINDS = {
    "program": (["-no-pie", "-Wl,-Ttext-segment=0x10000000"], None, None, "zero"),
    "program-in-the-lowest-pages": (["-no-pie", "-Wl,-Ttext-segment=0x20000"], None, None, "zero"),
    "pie": (["-pie", "-Wl,-Ttext-segment=0x40000000"], None, None, ""),
    "library-where-it-wants-to-be": (["-no-pie"], HIGH, "0x3100000000", "zero"),
    "library-elsewhere": (["-pie"], HIGH, HIGH, "positive"),
    "library-below": (["-pie"], HIGHEST, HIGHEST, "negative"),
}
WAYS = [pytest.param(("byte", "jump"), "entry", id="byte"), pytest.param(("jump",), "atomic", id="stop")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("addresses")


def _made(folder: Path, kind: str) -> tuple[Path, Path]:
    """Program and patched object of a kind, compiled once."""
    flags, base, other, _added = KINDS[kind]
    place = folder / kind
    program, target = place / "program", place / ("program" if base is None else "libanswer.so")
    if not place.exists():
        place.mkdir()
        if base is None:
            compile_program(place, "program", CODE + MAIN, *flags)
        else:
            nothing = "int other(void) { return 1; }"
            compile_program(place, "libother.so", nothing, "-shared", "-fPIC", "-Wl,-Ttext-segment=%s" % other)
            compile_program(place, "libanswer.so", CODE, "-shared", "-fPIC", "-Wl,-Ttext-segment=%s" % base)
            needs = ["-L%s" % place, "-Wl,--no-as-needed", "-lother", "-lanswer", "-Wl,-rpath,%s" % place]
            compile_program(place, "program", MAIN, *flags, *needs)
    return program, target


def _switched(running: Running, target: Path, folder: Path, forms: tuple[str, ...], consistency: str) -> None:
    """Patched, and back to what it was."""
    patch = make_patch(folder, target, FIXED, ["answer"])
    chosen, limits = Selection(pids=(running.pid,)), Limits(max_stop=5.0, timeout=20.0, consistency=consistency)
    assert running.ask("5") == "50"
    before = snapshot(running.pid)
    well(load_patch(patch, chosen, forms=forms))
    well(activate_patch("fix", chosen, limits))
    assert running.ask("5") == str(50000 + 40 + 400 + 4 + 5)
    well(deactivate_patch("fix", chosen, limits))
    if target.parent.name == "program-in-the-lowest-pages":
        # Sizes and counts of things in memory are addresses there: who may still hold one cannot be known.
        (outcome,) = unload_patch("fix", chosen, 0.1).outcomes
        assert outcome.error is None or outcome.error["code"] == "function_busy"
        assert running.ask("5") == "50"
        assert before.code.items() <= snapshot(running.pid).code.items()
        return
    well(unload_patch("fix", chosen, 20.0))
    assert running.ask("5") == "50"
    assert snapshot(running.pid).code == before.code


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_linked_for_an_address(
    folder: Path, tmp_path: Path, kind: str, forms: tuple[str, ...], consistency: str
) -> None:
    """Whatever the address that it was linked for, and the one that it has: patched, switched, taken out."""
    program, target = _made(folder, kind)
    raw = target.read_bytes()
    assert parse_header(lambda at, size: raw[at : at + size]).lowest_page() > 0
    with Running(program) as running:
        with Process(running.pid) as process:
            objects = mapped_objects(process.memory, process.maps())
        (found,) = [found for found in objects if found.path == str(target)]
        sign = ("negative", "zero", "positive")[(found.bias > 0) - (found.bias < 0) + 1]
        assert KINDS[kind][3] in (sign, "")
        _switched(running, target, tmp_path, forms, consistency)
        assert running.ended() == 0


@pytest.mark.parametrize("kind", ["pie", "library-elsewhere", "library-where-it-wants-to-be"])
def test_started_by_the_dynamic_linker(folder: Path, tmp_path: Path, kind: str) -> None:
    """A program that is an argument of the dynamic linker, which the kernel takes for the program then."""
    program, target = _made(folder, kind)
    linker = re.search(r"interpreter: ([^\]]+)", run("readelf", "-lW", str(program)))
    assert linker is not None
    with Running(Path(linker.group(1)), str(program)) as running:
        _switched(running, target, tmp_path, ("byte", "jump"), "entry")
        assert running.ended() == 0
