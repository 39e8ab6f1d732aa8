# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Several libraries of one name in one process: builds are told apart, copies are refused, namespaces are kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from libraries import FIXED, HOST, host, library, refused
from patching import Running, compile_program, livepatch_mappings, make_patch
from reports import only, well
from snapshots import snapshot

from module_utils._engine.activate import Limits
from module_utils._engine.facts import gather
from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._process.selection import Selection

LIMITS = Limits(max_stop=5.0, timeout=20.0)
WAYS = [pytest.param(("byte", "jump"), id="byte"), pytest.param(("jump",), id="stop")]


@pytest.mark.parametrize("forms", WAYS)
def test_two_builds_in_one_process(tmp_path: Path, forms: tuple[str, ...]) -> None:
    """Each has its own patch; a patch changes its own build only, whichever of them was opened first."""
    builds, patches = [], []
    for number in (0, 1):
        folder = tmp_path / str(number)
        folder.mkdir()
        builds.append(library(folder, "libanswer.so", number + 1))
        patches.append(make_patch(folder, builds[-1], FIXED, ["answer"], patch_id="fix%d" % number))
    program = host(tmp_path)
    for first, second in ((0, 1), (1, 0)):
        with Running(program) as running:
            chosen = Selection(pids=(running.pid,))
            for number in (first, second):
                assert running.ask("open %d %s" % (number, builds[number])) == "opened"
            before = snapshot(running.pid)
            answers = ["6", "7"]
            for number in (0, 1):
                well(load_patch(patches[number], chosen, forms=forms))
                well(activate_patch("fix%d" % number, chosen, LIMITS))
                answers[number] = str(5001 + number)
                assert [running.ask("ask 0 5"), running.ask("ask 1 5")] == answers
            for number in (0, 1):
                well(deactivate_patch("fix%d" % number, chosen, LIMITS))
                answers[number] = str(6 + number)
                assert [running.ask("ask 0 5"), running.ask("ask 1 5")] == answers
                well(unload_patch("fix%d" % number, chosen, 20.0))
            assert snapshot(running.pid) == before


def test_copies_are_refused(tmp_path: Path) -> None:
    """Two copies of one build, of one file or of two: patching one would fix a part. Nothing is changed."""
    one = library(tmp_path, "libanswer.so", 1)
    copy = Path(shutil.copy(one, tmp_path / "libcopy.so"))
    patch = make_patch(tmp_path, one, FIXED, ["answer"])
    with Running(host(tmp_path)) as running:
        chosen = Selection(pids=(running.pid,))
        for command in ("open 1 %s" % copy, "mopen 1 %s" % one):
            assert running.ask("open 0 %s" % one) == "opened"
            assert running.ask(command) == "opened"
            before = snapshot(running.pid)
            code, message = refused(load_patch(patch, chosen))
            assert code == "patch_unsupported"
            assert "2 times" in message
            assert snapshot(running.pid) == before
            assert livepatch_mappings(running.pid) == []
            for number in (0, 1):
                assert running.ask("close %d" % number) == "0"


def test_a_copy_that_comes_later(tmp_path: Path) -> None:
    """Opened after loading: the patch is not activated. Opened after activation: facts no longer call it verified, and
    the task that is to have it active fails. It can be taken out.
    """
    one = library(tmp_path, "libanswer.so", 1)
    copy = Path(shutil.copy(one, tmp_path / "libcopy.so"))
    patch = make_patch(tmp_path, one, FIXED, ["answer"])
    with Running(host(tmp_path)) as running:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("open 0 %s" % one) == "opened"
        well(load_patch(patch, chosen))
        assert running.ask("open 1 %s" % copy) == "opened"
        code, message = refused(activate_patch("fix", chosen, LIMITS))
        assert code == "patch_unsupported"
        assert "2 times" in message
        assert (running.ask("ask 0 5"), running.ask("ask 1 5")) == ("6", "6")
        assert running.ask("close 1") == "0"
        well(activate_patch("fix", chosen, LIMITS))
        assert running.ask("open 1 %s" % copy) == "opened"
        assert (running.ask("ask 0 5"), running.ask("ask 1 5")) == ("5001", "6")
        (fact,) = [fact for fact in gather(["fix"], "patched")["processes"] if fact["pid"] == running.pid]
        (told,) = fact["patches"]
        assert (told["state"], told["verified"]) == ("active", False)
        assert "another copy" in told["reasons"][0]
        outcome = only(activate_patch("fix", chosen, LIMITS))
        assert outcome.error is not None
        assert (outcome.error["code"], outcome.state) == ("patch_unsupported", "active")
        assert only(deactivate_patch("fix", chosen, LIMITS)).error is None
        assert only(unload_patch("fix", chosen, 20.0)).error is None
        assert (running.ask("ask 0 5"), running.ask("ask 1 5")) == ("6", "6")
        assert livepatch_mappings(running.pid) == []


# What `answer` gives tells which of several definitions of `chosen` its code was bound to.
USER = r"""
#include <stdlib.h>
extern int chosen(void);
__attribute__((noinline, noipa)) int answer(int x) { return x + abs(chosen()); }
"""
USER_FIXED = r"""
#include <stdlib.h>
#include <string.h>
extern int chosen(void), other(void);
int answer(int x) {
    char *text = malloc(100); /* which the namespace's own C library must free */
    int number;
    memset(text, 0, 100);
    text[0] = 'x';
    number = 1000 * x + 10 * chosen() + other() + (int)strlen(text);
    free(text);
    return number;
}
"""


@pytest.mark.parametrize("forms", WAYS)
@pytest.mark.parametrize("opening", ["open", "mopen"])
def test_names_are_those_of_the_namespace(tmp_path: Path, forms: tuple[str, ...], opening: str) -> None:
    """A library in a namespace of its own has its own dependencies and C library, and so does its patch.

    The program itself defines the same names, and `open` is the counter-proof: there its definitions come first.
    """
    own = "int chosen(void) { return 1; }\nint other(void) { return 3; }\n"
    program = compile_program(tmp_path, "program", HOST + own, "-rdynamic")
    names = "int chosen(void) { return 2; }\nint other(void) { return 4; }"
    compile_program(tmp_path, "libnames.so", names, "-shared", "-fPIC")
    place = ["-L%s" % tmp_path, "-lnames", "-Wl,-rpath,%s" % tmp_path]
    target = compile_program(tmp_path, "libanswer.so", USER, "-shared", "-fPIC", "-Wl,--no-as-needed", *place)
    patch = make_patch(tmp_path, target, USER_FIXED, ["answer"])
    assert {part.name for part in patch.manifest.references if part.kind == "external"} >= {"malloc", "chosen", "other"}
    old, new = ("6", "5014") if opening == "open" else ("7", "5025")
    with Running(program) as running:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("%s 0 %s" % (opening, target)) == "opened"
        assert running.ask("ask 0 5") == old
        before = snapshot(running.pid)
        well(load_patch(patch, chosen, forms=forms))
        well(activate_patch("fix", chosen, LIMITS))
        assert [running.ask("ask 0 5") for _turn in range(100)] == [new] * 100
        well(deactivate_patch("fix", chosen, LIMITS))
        well(unload_patch("fix", chosen, 20.0))
        assert running.ask("ask 0 5") == old
        assert snapshot(running.pid).code == before.code
        assert running.ended() == 0


def test_a_name_that_only_another_namespace_has(tmp_path: Path) -> None:
    """The namespace has no C library at all: the program's own is not taken for it."""
    target = library(tmp_path, "libanswer.so", 1)
    fixed = "#include <unistd.h>\nint answer(int x) { return getpid() > 0; }"
    patch = make_patch(tmp_path, target, fixed, ["answer"])
    with Running(host(tmp_path)) as running:
        chosen = Selection(pids=(running.pid,))
        assert running.ask("mopen 0 %s" % target) == "opened"
        before = snapshot(running.pid)
        code, message = refused(load_patch(patch, chosen))
        assert code == "symbol_not_found"
        assert "getpid" in message
        assert snapshot(running.pid) == before
        assert running.ask("open 1 %s" % target) == "opened"
        assert running.ask("close 0") == "0"
        well(load_patch(patch, chosen))
        well(activate_patch("fix", chosen, LIMITS))
        assert running.ask("ask 1 5") == "1"
