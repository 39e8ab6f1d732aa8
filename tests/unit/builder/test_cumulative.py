# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""The next patch on the same base takes the place of the last in one switch; patches from a new version's tree."""

from __future__ import annotations

import threading
from pathlib import Path

from live import LIMITS, put_in
from patching import Running
from projects import ASK, MAKEFILE, Project, functions, make_diff, project
from reports import well

from module_utils._engine.operations import activate_patch, deactivate_patch, load_patch, unload_patch
from module_utils._engine.outcome import Report

# Any answer with one factor new and the other old is divisible by neither 3 * 5 nor 7 * 11 nor 13 * 17.
WORK = """
static long asked;
__attribute__((noinline, noipa)) static long left(long x) { return x * 3; }
__attribute__((noinline, noipa)) static long right(long x) { return x * 5; }
__attribute__((noinline, noipa)) static long only_first(long x) { return x; }
__attribute__((noinline, noipa)) static long only_second(long x) { return x; }
long answer(long x)
{
    asked++;
    if (x == -1) return asked;
    if (x == -2) return only_first(1000) + only_second(100);
    if (x == -3) return left(0);
    return right(left(x));
}
"""
FIRST = WORK.replace("return x * 3;", "static long seen; seen++; return x ? x * 7 : seen;").replace("x * 5", "x * 11")
FIRST = FIRST.replace("only_first(long x) { return x;", "only_first(long x) { return x + 1;")
SECOND = WORK.replace("return x * 3;", "static long seen; seen++; return x ? x * 13 : seen;").replace("x * 5", "x * 17")
SECOND = SECOND.replace("only_second(long x) { return x;", "only_second(long x) { return x + 2;")


def state(report: Report) -> list[str]:
    """The codes of what went wrong."""
    return [outcome.error["code"] for outcome in report.outcomes if outcome.error]


def test_the_next_patch_replaces_the_last(tmp_path: Path) -> None:
    """Activated under load, no answer is half and half; what the first alone replaced is the object's own again."""
    cache = str(tmp_path / "cache")
    first = project(tmp_path / "1", {"work.c": WORK, "main.c": ASK}, {"work.c": FIRST}, cache=cache)
    second = project(tmp_path / "2", {"work.c": WORK, "main.c": ASK}, {"work.c": SECOND}, cache=cache)
    patches = [first.patch(name="fix-1"), second.patch(name="fix-2", replaces=("fix-1",))]
    assert functions(patches[0]) == ["left", "only_first", "right"]
    assert functions(patches[1]) == ["left", "only_second", "right"]
    with Running(first.deployed()) as process:
        meant = put_in(process, patches[0])
        assert (process.ask("1"), process.ask("-2"), process.ask("-3")) == ("77", "1101", "2")
        well(load_patch(patches[1], meant))
        answers: list[str] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                answers.append(process.ask("1"))

        asking = threading.Thread(target=ask)
        asking.start()
        well(activate_patch("fix-2", meant, LIMITS))
        while answers[-1:] != ["221"]:
            assert asking.is_alive()
        stop.set()
        asking.join()
        assert set(answers) <= {"77", "221"}
        assert process.ask("-2") == "1102"
        # The object's own variable kept its value; the one that each patch brings starts anew with each.
        assert int(process.ask("-1")) == len(answers) + 5
        assert int(process.ask("-3")) == answers.count("221") + 1
        assert state(activate_patch("fix-1", meant, LIMITS)) == ["superseded"]
        well(deactivate_patch("fix-2", meant, LIMITS))
        assert (process.ask("1"), process.ask("-2")) == ("15", "1100")
        well(unload_patch("fix-2", meant, 10))
        well(activate_patch("fix-1", meant, LIMITS))
        # Loaded all the time, the first kept its own.
        assert int(process.ask("-3")) == answers.count("77") + 3


def both_ways(one: Project) -> list[str]:
    """The functions replaced by a patch from the new tree, which must be the very patch made from a diff."""
    by_tree = one.build(name="fix")
    by_diff = one.build(name="fix", new_source="", diff=(str(make_diff(one, one.source.parent.parent)),), strip=2)
    assert by_tree.content == by_diff.content
    return functions(by_tree.patch)


def test_new_tree_with_files_added_removed_and_renamed(tmp_path: Path) -> None:
    """What is compiled is what the changed build compiles; statics of a renamed file keep their values."""
    part = "static long kept = 4;\n__attribute__((noinline)) long part(long x) { return x + kept++; }\n"
    work = "long part(long);\nlong gone(long x);\nlong answer(long x) { return part(x) + gone(x); }\n"
    gone = "long gone(long x) { return x * 100; }\n"
    files = {"main.c": ASK, "work.c": work, "part.c": part, "gone.c": gone, "README": "old\n"}
    after = {
        "work.c": work.replace("gone(long x);", "added(long x);").replace("gone(x)", "added(x)"),
        "gone.c": "",
        "added.c": '#include "added.h"\nlong added(long x) { static long n; n += x; return n * FACTOR; }\n',
        "added.h": "#define FACTOR 1000\n",
        "README": "",
        "NEWS": "new\n",
    }
    one = project(tmp_path, files, after)
    assert both_ways(one) == ["answer"]
    patch = one.patch()
    assert "added" in patch.manifest.new_symbols
    with Running(one.deployed()) as process:
        assert process.ask("1") == "105"
        put_in(process, patch)
        assert [process.ask("1"), process.ask("2")] == ["1006", "3008"]


def test_new_tree_with_changed_build_files(tmp_path: Path) -> None:
    """A definition in the makefile, one more unit there, and one that is compiled with another option."""
    work = "long more(long);\n#ifndef STEP\n#define STEP 1\n#endif\nlong answer(long x) { return more(x) + STEP; }\n"
    files = {"main.c": ASK, "work.c": work, "more.c": "long more(long x) { return x / 3; }\n"}
    makefile = MAKEFILE + "work.o: CFLAGS += -DSTEP=7\n"
    assert both_ways(project(tmp_path / "define", files, {"Makefile": makefile})) == ["answer"]
    makefile = MAKEFILE + "more.o: CFLAGS += -fwrapv -DUNUSED\n"
    after = {"Makefile": makefile, "more.c": "long more(long x) { return x / 4; }\n"}
    assert both_ways(project(tmp_path / "option", files, after)) == ["more"]
