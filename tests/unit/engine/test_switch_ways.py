# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of object, switched in every way: answers change and come back, and nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from patching import Running, compile_program, livepatch_mappings, make_patch, run
from snapshots import snapshot, tracers

from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.region import find_region, find_regions
from module_utils._patch.content import Patch
from module_utils._process.process import Process
from module_utils._process.selection import Selection

FUNCTIONS = r"""
#include <stdio.h>
#include <stdlib.h>
static int counter = 5;
__attribute__((noinline, used)) static int helper(int x) { counter++; return x + counter; }
__attribute__((noinline)) int answer(const char *text) { return helper(atoi(text)); }
"""
MAIN = r"""
#include <stdio.h>
#include <pthread.h>
#include <unistd.h>
#include <dlfcn.h>
int answer(const char *text);
static void *idle(void *nothing) { for (;;) pause(); }
int main(int count, char **words) {
    int (*ask)(const char *) = ASK;
    char line[100];
    pthread_t thread;
    for (int index = 0; index < 3; index++) pthread_create(&thread, 0, idle, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", ask(line));
}
"""
LINKED = MAIN.replace("ASK", "answer")
OPENED = MAIN.replace("ASK", 'dlsym(dlopen(words[1], RTLD_NOW), "answer")')
FIXED = r"""
#include <stdlib.h>
#include <string.h>
extern int helper(int);
extern int counter;
static int calls;
int answer(const char *text) {
    char copy[100];
    memset(copy, 0, sizeof copy);
    strncpy(copy, text, 99);
    calls++;
    switch (copy[0]) {
    case '1': return 1000000 + 1000 * calls + helper(atoi(copy));
    case '2': return 2000000 + 1000 * calls + counter;
    case '3': return 3000000;
    case '4': return 4000001;
    case '5': return 5000010;
    case '6': return 6000100;
    default: return (int)strlen(copy);
    }
}
"""
# A static program's own memset and strlen are IFUNCs: no plain reference to an offset may lead to one.
FIXED_STATIC = (
    FIXED.replace("memset(copy, 0, sizeof copy);", "")
    .replace("strncpy(copy, text, 99);", "for (int at = 0; (copy[at] = text[at]); at++);")
    .replace("(int)strlen(copy)", "0")
)
KINDS = ("pie", "no-pie", "library", "dlopened", "stripped", "deleted", "replaced", "static", "static-pie")
WAYS = [
    pytest.param(forms, consistency, id="%s-%s" % (forms[0], consistency))
    for forms in (("byte", "jump"), ("jump",))
    for consistency in ("entry", "atomic")
]


class Objects:
    """Programs by kind, compiled once, with a patch for each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, tuple[Path, list[str], Path, Patch]] = {}

    def get(self, kind: str) -> tuple[Path, list[str], Path, Patch]:
        """Program, its arguments, the object that is patched, and the patch."""
        if kind not in self._made:
            folder = self._folder / kind
            folder.mkdir()
            self._made[kind] = self._make(kind, folder)
        return self._made[kind]

    def _make(self, kind: str, folder: Path) -> tuple[Path, list[str], Path, Patch]:
        words: list[str] = []
        if kind in ("library", "dlopened"):
            target = compile_program(folder, "libanswer.so", FUNCTIONS, "-shared", "-fPIC")
            if kind == "library":
                program = compile_program(
                    folder, "program", LINKED, "-L%s" % folder, "-lanswer", "-Wl,-rpath,%s" % folder
                )
            else:
                program, words = compile_program(folder, "program", OPENED, "-ldl"), [str(target)]
        else:
            flags = {"no-pie": ["-no-pie"], "static": ["-static"], "static-pie": ["-static-pie"]}.get(kind, [])
            program = target = compile_program(folder, "program", FUNCTIONS + LINKED, *flags)
        patch = make_patch(folder, target, FIXED_STATIC if kind.startswith("static") else FIXED, ["answer"])
        if kind == "stripped":
            run("strip", "--strip-all", str(target))
        return program, words, target, patch


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    return Objects(tmp_path_factory.mktemp("objects"))


@pytest.mark.parametrize(("forms", "consistency"), WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_kind_of_object(objects: Objects, tmp_path: Path, kind: str, forms: tuple[str, ...], consistency: str) -> None:
    """Two processes at once: patched, switched twice, taken out; each is afterwards what it was before."""
    program, words, target, patch = objects.get(kind)
    if kind in ("deleted", "replaced"):
        program = target = Path(shutil.copy(program, tmp_path / "program"))
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(Running(program, *words)) for _turn in range(2)]
        if kind == "deleted":
            target.unlink()
        if kind == "replaced":
            os.replace(shutil.copy("/bin/true", tmp_path / "other"), target)
        chosen = Selection(pids=tuple(one.pid for one in both))
        assert [one.ask("1") for one in both] == ["7", "7"]
        before = [snapshot(one.pid) for one in both]

        loaded = load_patch(patch, chosen, forms=forms).outcomes
        assert [(one.error, one.before, one.state, one.changed, one.verified) for one in loaded] == [
            (None, "absent", "loaded", True, True)
        ] * 2
        assert [one.ask("1") for one in both] == ["8", "8"]
        ways = [_ways(one.pid) for one in both]
        assert all(way <= set(forms) for way in ways)
        if kind in ("pie", "stripped"):  # nothing can be in the way of the byte switch here
            assert ways == [{forms[0]}] * 2
        for times in (1, 2):
            limits = Limits(consistency=consistency, max_stop=2.0)
            done = activate_patch("fix", chosen, limits).outcomes
            assert [(one.error, one.state, one.changed, one.verified) for one in done] == [
                (None, "active", True, True)
            ] * 2
            stopless = [consistency == "entry" and way == {"byte"} for way in ways]
            assert [one.switch for one in done] == ["byte" if way else "stop" for way in stopless]
            assert [one.stop_us > 0 for one in done] == [not way for way in stopless]
            if times == 1:
                drift = {"deleted": "deleted", "replaced": "replaced"}.get(kind, "none")
                assert [_drift(one.pid, target) for one in both] == [drift] * 2
            expected = 1000000 + 1000 * (2 * times - 1) + 9 + (times - 1) * 2
            assert [one.ask("1") for one in both] == [str(expected)] * 2
            assert [one.ask("6") for one in both] == ["6000100"] * 2
            done = deactivate_patch("fix", chosen, limits).outcomes
            assert [(one.error, one.state, one.changed, one.verified) for one in done] == [
                (None, "loaded", True, True)
            ] * 2
            assert [one.ask("1") for one in both] == [str(8 + 2 * times)] * 2
        done = unload_patch("fix", chosen, timeout=1.0).outcomes
        assert [(one.error, one.state, one.changed) for one in done] == [(None, "absent", True)] * 2
        assert [snapshot(one.pid) for one in both] == before
        assert [livepatch_mappings(one.pid) for one in both] == [[], []]
        assert [tracers(one.pid) for one in both] == [{"0"}, {"0"}]
        assert [one.ask("1") for one in both] == ["13", "13"]
        assert [one.ended() for one in both] == [0, 0]


def _drift(pid: int, target: Path) -> str:
    """What facts say of the patched object in a process, and the file that it came from."""
    (fact,) = [fact for fact in gather(["fix"], "patched")["processes"] if fact["pid"] == pid]
    (found,) = [found for found in fact["objects"] if found["path"] == str(target)]
    return str(found["drift"])


def _ways(pid: int) -> set[str]:
    """The forms of switch that were chosen for the patch in a process."""
    with Process(pid) as process:
        region = find_region(find_regions(process.memory, process.maps()), "fix")
        assert region is not None
        return {site.kind for site in region.sites}


TINY = r"""
#include <stdio.h>
int same(int x);
/* mov, ret, and behind them bytes that name a place one GiB below, where there is room wherever the program lies. */
__asm__(".text\n.globl same\n.type same,@function\nsame: mov %edi,%eax\nret\n.size same,.-same\n"
        ".byte 0xcc,0xc0\n.p2align 4");
int main(void) {
    char line[100];
    setvbuf(stdout, 0, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) printf("%d\n", same(line[0] - '0'));
}
"""


def test_a_function_shorter_than_a_jump_is_switched_by_its_first_byte(tmp_path: Path) -> None:
    """Three bytes long: whatever lies behind it names the place; a whole jump would not fit."""
    program = compile_program(tmp_path, "program", TINY)
    patch = make_patch(tmp_path, program, "int same(int x) { return x + 1000; }", ["same"])
    assert patch.manifest.functions[0].size < 5
    with Running(program) as running:
        meant = Selection(pids=(running.pid,))
        (refused,) = load_patch(patch, meant, forms=("jump",)).outcomes
        assert refused.error is not None
        assert refused.error["code"] == "function_too_short"
        assert load_patch(patch, meant).outcomes[0].state == "loaded"
        assert activate_patch("fix", meant, Limits()).outcomes[0].switch == "byte"
        assert running.ask("7") == "1007"
        assert deactivate_patch("fix", meant, Limits()).outcomes[0].switch == "byte"
        assert running.ask("7") == "7"
        assert unload_patch("fix", meant, 5).outcomes[0].state == "absent"
