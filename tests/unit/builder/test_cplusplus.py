# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""C++: member functions, templates, exceptions, virtual calls, guarded variables, lambdas; changed classes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cplusplus_cases import (
    FILES,
    HEADER,
    HEADER_EDITS,
    MAIN,
    OTHER,
    OTHER_EDITS,
    THROWING,
    THROWING_EDITS,
    THROWING_MAIN,
    WORK,
    WORK_EDITS,
)
from live import LIMITS, answers_like, put_in
from patching import Running, livepatch_mappings
from projects import ASK, MAKEFILE, edited, functions, project
from reports import well

from module_utils._engine.operations import deactivate_patch, load_patch, unload_patch
from module_utils._process.selection import Selection

WAYS = {
    "g++": "CXXFLAGS='-O1 -g -fno-ipa-ra -DFULL'",
    "g++, not position independent, O0": "CXXFLAGS='-O0 -g -fno-pie -D_GLIBCXX_ASSERTIONS' LINK=-no-pie",
    "g++, library": "CXXFLAGS='-O2 -g -fno-ipa-ra -fPIC' WORK=libwork.so",
    "clang++, library": "CXX=clang++ CXXFLAGS='-O1 -g -fPIC' WORK=libwork.so",
}


@pytest.mark.parametrize("way", WAYS)
def test_all_of_it(way: str, tmp_path: Path) -> None:
    """Exceptions pass through patched functions and are caught in them; objects of the old life are used on.

    The patch has new variables with destructors, which the program calls when it ends: it stays until then.
    """
    command = "make " + WAYS[way]
    after = {
        "shapes.h": edited(HEADER, *HEADER_EDITS),
        "work.cc": edited(WORK, *WORK_EDITS),
        "other.cc": edited(OTHER, *OTHER_EDITS),
    }
    one = project(tmp_path, FILES, after, build_command=command)
    patch = one.patch(artifact="libwork.so" if "libwork" in command else "prog")
    names = functions(patch)
    assert len(names) == len(set(names))
    assert {"_Z6answerl", "_ZNK6shapes5Round4areaEl", "_ZN6shapes5timesEl"} <= set(names)
    with Running(one.deployed()) as process, Running(one.built(changed=True, command=command)) as new:
        meant = answers_like(process, new, patch)
        (outcome,) = unload_patch("fix", meant, 0).outcomes
        assert outcome.error
        assert outcome.error["code"] == "function_busy"
        assert process.ended() == 0


def test_the_unwinder_forgets(tmp_path: Path) -> None:
    """In, on, off and out again while another thread throws without pause: nothing is left, nothing is lost."""
    files = {
        "main.cc": THROWING_MAIN,
        "work.cc": THROWING,
        "Makefile": MAKEFILE.replace("CC", "CXX").replace(".c", ".cc"),
    }
    files["Makefile"] = (
        files["Makefile"].replace("CFLAGS = -O2 -g", "CXXFLAGS = -O2 -g -fno-ipa-ra").replace("CFLAGS)", "CXXFLAGS)")
    )
    one = project(tmp_path, files, {"work.cc": edited(THROWING, *THROWING_EDITS)})
    patch = one.patch()
    with Running(one.deployed()) as process:
        meant = Selection(pids=(process.pid,))
        for _round in range(4):
            assert [process.ask(question) for question in ("2", "3", "1000")] == ["2 0", "-3 0", "5 0"]
            put_in(process, patch)
            assert [process.ask(question) for question in ("2", "3", "1000")] == ["3 0", "-5 0", "5 0"]
            well(deactivate_patch("fix", meant, LIMITS))
            assert [process.ask(question) for question in ("2", "3", "1000")] == ["2 0", "-3 0", "5 0"]
            well(unload_patch("fix", meant, 10))
            assert not livepatch_mappings(process.pid)
        assert process.ended() == 0


CLASSES = """
#ifdef HELD
#include <functional>
static std::function<long(long)> held;
#else
static long held(long x) { return x; }
#endif
struct Base { virtual ~Base() {} virtual long one(long x) { return x; } long n = 1; };
struct Derived : Base { long one(long x) override { return x + n; } };
namespace kept { struct Plain { long a; int b; static long c; }; long Plain::c = 2; Plain plain; }
static Derived *derived = new Derived;
__attribute__((noinline)) long step(long x) { return x + 1; }
long answer(long x)
{
    long y = x * 2;
#ifdef HELD
    if (!held)
        held = [y](long z) { return z + y; };
#endif
    kept::plain.a += 1;
    return derived->one(x) + kept::plain.a + kept::Plain::c + held(x) + step(x);
}
"""
REFUSED = {
    "a new virtual function": (
        ("{ return x; } long n", "{ return x; } virtual long two() { return 2; } long n"),
        "layout_changed",
    ),
    "virtual functions swapped": (
        (
            "virtual ~Base() {} virtual long one(long x) { return x; }",
            "virtual long one(long x) { return x; } virtual ~Base() {}",
        ),
        "layout_changed",
    ),
    "an override less": (
        ("long one(long x) override {", "long other(long x) {"),
        "layout_changed",
    ),
    "another base": (
        ("struct Derived : Base {", "struct Other { long o; }; struct Derived : Base, Other {"),
        "layout_changed",
    ),
    "a new member in a namespace": (("long a; int b; static", "long a; int b, d, e; static"), "layout_changed"),
    "a lambda that keeps more": (
        ("[y](long z) { return z + y; }", "[y, x](long z) { return z + y + x; }"),
        "layout_changed",
    ),
    "a lambda before another": (
        (
            "#ifdef HELD\n    if (!held)\n",
            "#ifdef HELD\n    std::function<long(long)> a = [](long z) { return z; };\n    y = a(y);\n    if (!held)\n",
        ),
        "construct_unsupported",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_changed_classes_are_refused(name: str, tmp_path: Path) -> None:
    """Objects that exist have the old layout, the old virtual functions and the old captures."""
    edit, code = REFUSED[name]
    makefile = "prog: main.o work.o\n\t$(CXX) $(CXXFLAGS) -o $@ main.o work.o\n"
    files = {"main.cc": MAIN, "work.cc": CLASSES, "Makefile": makefile}
    after = edited(CLASSES, edit, ("return x + 1;", "return x + 2;"))
    one = project(
        tmp_path,
        files,
        {"work.cc": after},
        build_command="make CXXFLAGS='-O1 -g%s'" % (" -DHELD" if "lambda" in name else ""),
    )
    assert code in {refusal for refusal, _symbol in one.refusals()}


def test_a_static_member_is_no_member(tmp_path: Path) -> None:
    """A static member more, and a member function more: objects stay as they are."""
    makefile = "prog: main.o work.o\n\t$(CXX) $(CXXFLAGS) -o $@ main.o work.o\n"
    files = {"main.cc": MAIN, "work.cc": CLASSES, "Makefile": makefile}
    after = edited(
        CLASSES,
        ("static long c; }; long", "static long c, d; long more() const { return a + d; } }; long Plain::d = 3; long"),
        ("+ step(x)", "+ step(x) + kept::plain.more()"),
    )
    one = project(tmp_path, files, {"work.cc": after}, build_command="make CXXFLAGS='-O1 -g'")
    assert functions(one.patch()) == ["_Z6answerl"]


def test_a_thread_is_cancelled_inside(tmp_path: Path) -> None:
    """In C, without an unwind table: the handlers of the patched function run, and the thread ends."""
    text = """
#include <pthread.h>
#include <unistd.h>
static long cleaned;
static int ends[2];
static void clean(void *by) { cleaned += *(long *)by; }
__attribute__((noinline)) static void *wait_inside(void *none)
{
    long by = 1;
    char one;
    pthread_cleanup_push(clean, &by);
    while (read(ends[0], &one, 1) == 1)
        ;
    pthread_cleanup_pop(0);
    return none;
}
long answer(long x)
{
    pthread_t thread;
    void *result;
    if (pipe(ends) || pthread_create(&thread, 0, wait_inside, 0))
        return -1;
    if (pthread_cancel(thread) || pthread_join(thread, &result))
        return -2;
    return cleaned + (result == PTHREAD_CANCELED) * 100;
}
"""
    one = project(tmp_path, {"main.c": ASK, "work.c": text}, {"work.c": text.replace("by = 1;", "by = 5;")})
    patch = one.patch()
    assert not [section for section in patch.sections if section.name == ".livepatch_frames"]
    with Running(one.deployed()) as process:
        assert process.ask("1") == "101"
        put_in(process, patch)
        assert [process.ask("1"), process.ask("1")] == ["106", "111"]


def test_a_process_without_an_unwinder_is_refused(tmp_path: Path) -> None:
    """Code through which exceptions pass is not loaded where nobody could be told of it."""
    makefile = MAKEFILE.replace("-O2 -g", "-O2 -g -fexceptions")
    text = (
        "__attribute__((noinline)) long step(long x) { return x + 1; }\nlong answer(long x) { return step(x) * 2; }\n"
    )
    files = {"main.c": ASK, "work.c": text, "Makefile": makefile}
    one = project(tmp_path, files, {"work.c": text.replace("x + 1", "x + 2")})
    patch = one.patch()
    with Running(one.deployed()) as process:
        (outcome,) = load_patch(patch, Selection(pids=(process.pid,))).outcomes
        assert outcome.error
        assert outcome.error["code"] == "symbol_not_found"
        assert not livepatch_mappings(process.pid)
        assert process.ask("1") == "4"
