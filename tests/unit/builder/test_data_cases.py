# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""Variables: what the process has keeps its value and its place, what is new comes with the patch.

Executables and libraries, with each way to get at thread-local variables, copied variables and IFUNCs.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from data_cases import EDITS, FAR, MAIN, MAKEFILE, WORK
from live import QUESTIONS, answers_like
from patching import Running, livepatch_mappings
from projects import ASK, Project, edited, functions, project

from module_utils._engine.operations import unload_patch
from module_utils._patch.content import Patch
from module_utils._patch.reader import read_patch

# How the executable, or with "-shared" the library, is compiled and linked.
WAYS = {
    "executable": "CFLAGS='-O2 -g -fno-ipa-ra'",
    "executable, not position independent, O0": "CFLAGS='-O0 -g -fno-pie' LINK=-no-pie",
    "executable of code for libraries": "CFLAGS='-O2 -g -fno-ipa-ra -fPIC'",
    "executable of code for libraries, O0": "CFLAGS='-O0 -g -fPIC -fno-plt'",
    "executable of code for libraries, descriptors": "CFLAGS='-O2 -g -fno-ipa-ra -fPIC -mtls-dialect=gnu2'",
    "executable, clang": "CC=clang CFLAGS='-O2 -g -fPIC'",
    "library": "CFLAGS='-O2 -g -fno-ipa-ra -fPIC' WORK=libwork.so",
    "library, O0": "CFLAGS='-O0 -g -fPIC' WORK=libwork.so MAIN=-fno-pie LINK=-no-pie",
    "library, without PLT": "CFLAGS='-O2 -g -fno-ipa-ra -fPIC -fno-plt' WORK=libwork.so",
    "library, initial exec": "CFLAGS='-O2 -g -fno-ipa-ra -fPIC -ftls-model=initial-exec' WORK=libwork.so",
    "library, descriptors": "CFLAGS='-O2 -g -fno-ipa-ra -fPIC -mtls-dialect=gnu2' WORK=libwork.so",
    "library, clang": "CC=clang CFLAGS='-O2 -g -fPIC' WORK=libwork.so",
}


def like_new(one: Project, patch: Patch, command: str) -> None:
    """A patched process answers like the new program; taken out, the patch leaves nothing behind."""
    with Running(one.deployed()) as process, Running(one.built(changed=True, command=command)) as new:
        meant = answers_like(process, new, patch)
        # The stack may hold an address of the patch from a call that has returned, until something else is put there.
        for question in QUESTIONS:
            assert process.ask(question)
            (outcome,) = unload_patch("fix", meant, 0.1).outcomes
            if outcome.error is None:
                break
        assert outcome.error is None
        assert not livepatch_mappings(process.pid)
        assert process.ask("3")


@pytest.mark.parametrize("way", WAYS)
def test_all_data(way: str, tmp_path: Path) -> None:
    """Every kind of variable, in one object."""
    command = "make " + WAYS[way]
    files = {"main.c": MAIN, "far.c": FAR, "work.c": WORK, "Makefile": MAKEFILE}
    one = project(tmp_path, files, {"work.c": edited(WORK, *EDITS)}, build_command=command)
    patch = one.patch(artifact="libwork.so" if "libwork" in command else "prog")
    # Of Clang's static functions, which may be called in ways of their own, a copy comes along with their callers.
    assert {"use_locals", "use_data", "first"} <= {*functions(patch), *patch.manifest.new_symbols}
    assert {"bag", "fresh", "last", "table", "word"} <= set(patch.manifest.new_symbols)
    like_new(one, patch, command)


# Data with other initial values: old and new text in the source, the name, the bytes of both.
VALUES = {
    "a string": ('char text[8] = "old";', 'char text[8] = "newer";', "text", b"old".ljust(8, b"\0"), b"newer\0\0\0"),
    "a zero": ("long zero;", "long zero = 258;", "zero", bytes(8), b"\x02\x01".ljust(8, b"\0")),
    "an array": (
        "short some[3] = {1, 2, 3};",
        "short some[3] = {1, 9, 3};",
        "some",
        b"\1\0\2\0\3\0",
        b"\1\0\x09\0\3\0",
    ),
    "a structure": (
        "= {5, 2.0, {7, 8}};",
        "= {5, 2.0, {7, 9}};",
        "pair",
        b"\5\0\0\0" + bytes(4) + b"\0\0\0\0\0\0\0\x40\7\x08" + bytes(6),
        b"\5\0\0\0" + bytes(4) + b"\0\0\0\0\0\0\0\x40\7\x09" + bytes(6),
    ),
    "a static local": ("int within = 4;", "int within = 6;", "within", b"\4\0\0\0", b"\6\0\0\0"),
}
VALUED = """
volatile char text[8] = "old";
volatile long zero;
static volatile short some[3] = {1, 2, 3};
static volatile struct { int a; double b; char c[2]; } pair = {5, 2.0, {7, 8}};
static const char *volatile word = "word";
static __thread volatile long own = 4;
__attribute__((noinline)) static long inner(long x) { static volatile int within = 4; return x + within; }
long answer(long x)
{
    return inner(x) + text[0] + text[4] * 3 + zero + some[1] + pair.c[1] + pair.a + word[0] + own;
}
"""


@pytest.mark.parametrize("name", VALUES)
def test_values_are_written_where_it_is_meant(name: str, tmp_path: Path) -> None:
    """A changed initial value is refused, and written once it is named: old and new are shown."""
    old, new, symbol, before, after = VALUES[name]
    one = project(tmp_path, {"main.c": ASK, "work.c": VALUED}, {"work.c": edited(VALUED, (old, new))})
    ((code, refused),) = one.refusals()
    assert (code, refused.partition(".")[0]) == ("data_changed", symbol)
    result = one.build(data_changes=(refused,))
    assert result.summary["data"] == [{"name": refused, "old": before.hex(), "new": after.hex()}]
    like_new(one, read_patch(result.content), "make")


@pytest.mark.parametrize(
    ("edits", "named", "expected"),
    [
        ([('word = "word"', 'word = "other"')], "word", ("data_changed", "word")),
        ([("own = 4", "own = 5")], "own", ("tls_unsupported", "own")),
        ([("long zero;", "long zero[2];"), ("zero +", "zero[1] +")], "zero", ("data_changed", "zero")),
        (
            [
                ("static __thread", "static __thread volatile long more;\nstatic __thread"),
                ("+ own;", "+ own + more++;"),
            ],
            "more",
            ("tls_unsupported", "more"),
        ),
    ],
)
def test_values_that_cannot_be_written(
    edits: list[tuple[str, str]], named: str, expected: tuple[str, str], tmp_path: Path
) -> None:
    """Pointers (another one in each process), thread-local variables (one for each thread), other sizes."""
    one = project(tmp_path, {"main.c": ASK, "work.c": VALUED}, {"work.c": edited(VALUED, *edits)})
    assert expected in one.refusals(data_changes=(named,))


def test_a_resolver_is_not_asked_again(tmp_path: Path) -> None:
    """An IFUNC whose resolver changes has been resolved: refused. A new pointer to one may be another: refused."""
    text = """
typedef long callback(long);
static long half(long x) { return x / 2; }
static long third(long x) { return x / 3; }
static callback *choose(void) { return half; }
long part(long x) __attribute__((ifunc("choose")));
long answer(long x) { return part(x) + third(x); }
"""
    for edit, symbol in (
        (("return half;", "return third;"), "part"),
        (("third(x);", "(x > 3 ? part : third)(x);"), "answer"),
    ):
        one = project(tmp_path / symbol, {"main.c": ASK, "work.c": text}, {"work.c": edited(text, edit)})
        assert one.refusals() == [("construct_unsupported", symbol)]
