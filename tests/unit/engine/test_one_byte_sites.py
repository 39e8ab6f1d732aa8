# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Each kind of place for the one byte, switched back and forth under calls of several threads: no wrong answer ever.

The program itself takes the places that the tests want out of the way, as any mapping could, before it says ready.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch
from snapshots import snapshot

from module_utils._engine.activate import Limits
from module_utils._engine.choose_switch import BYTE
from module_utils._engine.operations import Report, activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.region import Region, find_region, find_regions
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection

# Every call passes a vector register, and says so in rax as for a variadic function; the new code relies on it. What
# the caller keeps in registers and on its stack across the call is compared afterwards.
PROGRAM = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#define OWN __attribute__((noinline, noipa))
OWN __attribute__((section(".text.far"))) int helper(int x) { return x * 3 + 1; }
OWN void fill(int *room, int x) { for (int at = 0; at < 12; at++) room[at] = x + at; }
OWN int thunk(int x) { return helper(x); }
OWN int pushes(int x) { int y = helper(x), z = helper(y + x); return helper(y) + x + y + z; }
OWN int stack(int x) { int room[12]; fill(room, x); return room[3] + room[7]; }
OWN int tests(int x) { if (x == 3) return 5; return helper(x) + 1; }
OWN int writes(int x, ...) {
    va_list rest; va_start(rest, x); int first = va_arg(rest, int); va_end(rest); return x + first;
}
OWN __attribute__((section(".text.far"))) int both(int x, int y) { return x * 3 + y; }
OWN int immediate(int x) { return both(x, 1); }
typedef int function(int, ...);
static function *asked;
static int old_answers[64];
static atomic_long calls, wrong, seen_new;
static atomic_int ended;
static void take(uintptr_t place) {
    mmap((void *)(place & -4096), 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}
static void *calling(void *seed) {
    unsigned long a = (unsigned long)seed, b = a + 1, c = a + 2, d = a + 3, e = a + 4, g = a + 5;
    while (!ended) {
        int x = calls++ & 63, answer = asked(x, 5, 2.5);
        if (answer == x * 7 + 1010) seen_new++;
        else if (answer != old_answers[x]) wrong++;
        a++, b++, c++, d++, e++, g++;
        if (b != a + 1 || c != a + 2 || d != a + 3 || e != a + 4 || g != a + 5) wrong++;
    }
    return 0;
}
int main(int count, char **words) {
    static const struct { const char *name; void *code; } all[] = {
        {"thunk", thunk}, {"pushes", pushes}, {"stack", stack}, {"tests", tests}, {"writes", writes},
        {"immediate", immediate}};
    char line[100];
    pthread_t threads[4];
    for (int at = 0; at < 6; at++) if (!strcmp(all[at].name, words[1])) asked = (function *)all[at].code;
    for (int at = 2; at < count; at++) {
        int32_t far;
        char *site = (char *)asked + atoi(words[at]);
        memcpy(&far, site + 1, 4);
        take((uintptr_t)site + 5 + far);
    }
    for (int x = 0; x < 64; x++) old_answers[x] = asked(x, 5, 2.5);
    setvbuf(stdout, 0, _IOLBF, 0);
    for (long at = 0; at < 4; at++) pthread_create(threads + at, 0, calling, (void *)(at * 1000));
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%ld %ld %ld\n", wrong, calls, seen_new);
    ended = 1;
    for (int at = 0; at < 4; at++) pthread_join(threads[at], 0);
    return wrong != 0;
}
"""
NEW = r"""
#include <stdarg.h>
int NAME(int x, ...) {
    va_list rest;
    va_start(rest, x);
    int first = va_arg(rest, int);
    double second = va_arg(rest, double);
    va_end(rest);
    return x * 7 + first + (int)(second * 2) + 1000;
}
"""
NEW_OF_ONE = "int NAME(int x) { return x * 7 + 1010; }"
FLIPS = 4000
PLAIN, MARKED = "-fcf-protection=none", "-fcf-protection=branch"
# Function, flags, offsets of bytes that would name a place which is taken, offsets that the jump may then have, with
# its prefix, and the first bytes of the function.
SHAPES = [
    pytest.param("thunk", PLAIN, (), {0}, "e9", id="a-jump-itself"),
    pytest.param("thunk", MARKED, (), {4}, "f30f1efa", id="a-jump-behind-endbr64"),
    pytest.param("stack", MARKED, (), {4}, "f30f1efa", id="endbr64"),
    pytest.param("stack", MARKED, (4, 5), {8}, "f30f1efa", id="sub-behind-endbr64"),
    pytest.param("stack", PLAIN, (0, 1), {4}, "4883ec", id="sub"),
    pytest.param("stack", PLAIN, (0,), {0}, "4883ec", id="behind-a-rex-prefix"),
    pytest.param("pushes", PLAIN, (0, 1), {1, 2}, "", id="one-push"),
    pytest.param("pushes", PLAIN, (0, 1, 2, 3), {3, 4, 5, 6}, "", id="pushes-and-moves"),
    pytest.param("pushes", PLAIN + " -fno-omit-frame-pointer", (0, 1, 2), {4}, "554889e5", id="frame-pointer"),
    pytest.param("tests", PLAIN, (0,), {3}, "83ff03", id="compare"),
    pytest.param("writes", PLAIN, (0, 1), {5}, "488d4424", id="writes-rax"),
]


def _made(folder: Path, name: str, flags: str, **manifest: int) -> tuple[Path, Patch]:
    program = compile_program(folder, "program", PROGRAM, *flags.split())
    return program, make_patch(folder, program, NEW.replace("NAME", name), [name], **manifest)


def _region(process: Process) -> Region:
    region = find_region(find_regions(process.memory, process.maps()), "fix")
    assert region is not None
    return region


def _ok(report: Report) -> str:
    (one,) = report.outcomes
    assert (one.error, one.verified) == (None, True)
    return one.switch


@pytest.mark.parametrize(("name", "flags", "taken", "offsets", "first"), SHAPES)
def test_switched_under_calls(
    tmp_path: Path, name: str, flags: str, taken: tuple[int, ...], offsets: set[int], first: str
) -> None:
    """Thousands of switches both ways under four threads' calls; verified, and afterwards as it was before."""
    program, patch = _made(tmp_path, name, flags)
    assert patch.manifest.functions[0].entry.startswith(first)
    _switch_often(program, patch, (name, *map(str, taken)), offsets)


def test_behind_a_write_to_no_argument(tmp_path: Path) -> None:
    """What is written to a register in which no argument comes does not matter; where that is not known, it does."""
    program, unknown = _made(tmp_path, "immediate", PLAIN)
    assert unknown.manifest.functions[0].entry.startswith("be01000000e9")
    with Running(program, "immediate") as running:
        (refused,) = load_patch(unknown, Selection(pids=(running.pid,)), forms=(BYTE,)).outcomes
        assert refused.error is not None
        assert refused.error["code"] == "function_too_short"
    patch = make_patch(tmp_path, program, NEW_OF_ONE.replace("NAME", "immediate"), ["immediate"], arguments=1)
    _switch_often(program, patch, ("immediate",), {5})


def _switch_often(program: Path, patch: Patch, words: tuple[str, ...], offsets: set[int]) -> None:
    with Running(program, *words) as running:
        meant = Selection(pids=(running.pid,))
        before = snapshot(running.pid)
        _ok(load_patch(patch, meant))
        with Process(running.pid) as process:
            (site,) = _region(process).sites
            assert (site.kind, site.address - site.entry in offsets) == (BYTE, True)
            assert sum(one != two for one, two in zip(site.old, site.new)) == 1
            assert _ok(activate_patch("fix", meant, Limits())) == "byte"
            (at,) = [index for index, (one, two) in enumerate(zip(site.old, site.new)) if one != two]
            for turn in range(FLIPS):
                content = (site.old, site.new)[turn & 1]
                process.memory.write(site.address + at, content[at : at + 1])
        for _turn in range(20):
            assert _ok(deactivate_patch("fix", meant, Limits())) == "byte"
            assert _ok(activate_patch("fix", meant, Limits())) == "byte"
        assert _ok(deactivate_patch("fix", meant, Limits(consistency="atomic", max_stop=2.0))) == "stop"
        assert _ok(activate_patch("fix", meant, Limits(consistency="atomic", max_stop=2.0))) == "stop"
        assert _ok(deactivate_patch("fix", meant, Limits())) == "byte"
        (gone,) = unload_patch("fix", meant, timeout=5.0).outcomes
        assert (gone.error, gone.state) == (None, "absent")
        wrong, calls, seen_new = map(int, running.ask("?").split())
        assert wrong == 0
        assert 0 < seen_new < calls
        assert livepatch_mappings(running.pid) == []
        assert snapshot(running.pid) == before
        assert running.ended() == 0


def test_no_place_behind_which_something_branches(tmp_path: Path) -> None:
    """A loop back to a place is no call: where the builder saw one, a byte there is refused."""
    program, patch = _made(tmp_path, "stack", PLAIN, overwritable=4)
    with Running(program, "stack", "0", "1") as running:
        (refused,) = load_patch(patch, Selection(pids=(running.pid,)), forms=(BYTE,)).outcomes
        assert refused.error is not None
        assert refused.error["code"] == "function_too_short"
        assert livepatch_mappings(running.pid) == []


def test_two_patches_of_one_function_at_different_places(tmp_path: Path) -> None:
    """The second patch finds the first one's place taken and goes behind it: stacked on the first, and replacing it, it
    takes over under calls.
    """
    program, patch = _made(tmp_path, "stack", PLAIN)
    other = tmp_path / "other"
    other.mkdir()
    second = make_patch(other, program, NEW.replace("NAME", "stack"), ["stack"], patch_id="second")
    third = make_patch(other, program, NEW.replace("NAME", "stack"), ["stack"], patch_id="third", replaces=("fix",))
    with Running(program, "stack") as running:
        meant = Selection(pids=(running.pid,))
        before = snapshot(running.pid)
        _ok(load_patch(patch, meant))
        _ok(activate_patch("fix", meant, Limits()))
        _ok(load_patch(second, meant))
        for _turn in range(20):
            _ok(activate_patch("second", meant, Limits(max_stop=2.0)))
            _ok(deactivate_patch("second", meant, Limits(max_stop=2.0)))
        _ok(load_patch(third, meant))
        for _turn in range(20):
            _ok(activate_patch("third", meant, Limits(max_stop=2.0)))
            _ok(deactivate_patch("third", meant, Limits(max_stop=2.0)))
            _ok(activate_patch("fix", meant, Limits(max_stop=2.0)))
        _ok(deactivate_patch("fix", meant, Limits(max_stop=2.0)))
        for patch_id in ("third", "second", "fix"):
            (gone,) = unload_patch(patch_id, meant, timeout=5.0).outcomes
            assert (gone.error, gone.state) == (None, "absent")
        assert running.ask("?").split()[0] == "0"
        assert snapshot(running.pid) == before
        assert running.ended() == 0
