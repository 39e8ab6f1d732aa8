# Copyright (c) 2026 cgl.livepatch contributors
# GNU General Public License v2.0 or later (see LICENSES/GPL-2.0-or-later.txt or https://www.gnu.org/licenses/old-licenses/gpl-2.0.txt)
# SPDX-License-Identifier: GPL-2.0-or-later
"""What cannot be patched is refused with its code and place, each change together with its neighbour that can be."""

from __future__ import annotations

from pathlib import Path

import pytest
from projects import ASK, MAKEFILE, functions, project

from module_utils._build.request import BuildRefused
from module_utils._errors import LivepatchError

WORK = """
#include <stdlib.h>
struct item { long a; int b; };
union both { long l; char c[8]; };
enum color { RED, GREEN };
typedef struct { int x, y; } point;
struct inner { struct item first; point at; };
struct inner store = {{1, 2}, {3, 4}};
static long limit = 10;
static const long step = 3;
long total;
__attribute__((noinline)) static long get(struct item *i) { return i->a + i->b; }
__attribute__((noinline)) static long part(int x) { return x + total; }
static void __attribute__((constructor)) begin(void) { total = 1; }
long answer(long x)
{
    union both u = {x};
    enum color c = x & 1 ? RED : GREEN;
    limit += 1;
    return get(&store.first) + limit + step + u.c[0] + c + store.at.x + part((int)x);
}
"""

# What is edited, the refusals that follow.
REFUSED = {
    "a new member": (
        ("int b; };", "int b; int c; };"),
        ("store.at.x", "store.at.y"),
        [("layout_changed", "struct item")],
    ),
    "a member of another type": (("long a; int b;", "int a; int b;"), None, [("layout_changed", "struct item")]),
    "members swapped": (("int x, y;", "int y, x;"), None, [("layout_changed", "typedef point")]),
    "a larger union": (
        ("char c[8]", "char c[9]"),
        ("u.c[0]", "(u.c[0] + sizeof u)"),
        [("layout_changed", "union both")],
    ),
    "other values of an enumeration": (("{ RED, GREEN }", "{ GREEN, RED }"), None, [("layout_changed", "enum color")]),
    "another initial value": (("limit = 10", "limit = 11"), ("limit += 1", "limit += 2"), [("data_changed", "limit")]),
    "a constructor": (("total = 1", "total = 2"), None, [("constructor_changed", "begin")]),
    "a new constructor": (
        ("long answer(", "static void __attribute__((constructor)) again(void) { total++; }\nlong answer("),
        None,
        [("constructor_changed", "again")],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    """The refusals of one change, all of them."""
    first, second, expected = REFUSED[name]
    after = WORK
    for edit in (first, second):
        if edit:
            assert edit[0] in after
            after = after.replace(*edit)
    one = project(tmp_path, {"work.c": WORK, "main.c": ASK}, {"work.c": after})
    assert set(one.refusals()) >= set(expected)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("enum color { RED, GREEN };", "enum color { RED, GREEN, BLUE };"),
        ("limit += 1;", "struct { long a, b, c; } own = {x, x, 1}; limit += own.a > own.b ? 2 : own.c;"),
        ("long total;", "long total;\nstruct brand_new { long z[4]; };\nstatic struct brand_new fresh;\n"),
    ],
)
def test_neighbours_are_not_refused(old: str, new: str, tmp_path: Path) -> None:
    """An enumerator more, a type of one's own, a new type: no running code knows of them."""
    after = WORK.replace(old, new).replace("return get(", "return 5 + get(")
    if "fresh" in new:
        after = after.replace("limit += 1;", "fresh.z[x & 3]++; limit += fresh.z[0];")
    one = project(tmp_path, {"work.c": WORK, "main.c": ASK}, {"work.c": after})
    assert functions(one.patch()) == ["answer"]


def test_all_refusals_are_told(tmp_path: Path) -> None:
    """Not only the first one."""
    after = (
        WORK.replace("limit = 10", "limit = 12").replace("total = 1", "total = 3").replace("int b; };", "int b, c; };")
    )
    one = project(tmp_path, {"work.c": WORK, "main.c": ASK}, {"work.c": after})
    assert {code for code, _symbol in one.refusals()} == {"data_changed", "constructor_changed", "layout_changed"}


def test_main_is_not_entered_again(tmp_path: Path) -> None:
    """A change in main itself."""
    one = project(tmp_path, {"main.c": ASK, "work.c": WORK}, {"main.c": ASK.replace("answer(x));", "answer(x) + 1);")})
    assert one.refusals() == [("entry_changed", "main")]


def test_prototype_with_callers_outside(tmp_path: Path) -> None:
    """long work(int) becomes long work(long): caller.c is compiled from the same text as before."""
    caller = "long work();\nlong answer(long x) { return work((int)x); }\n"
    work = "long work(int x) { return x; }\n"
    files = {"main.c": ASK, "caller.c": caller, "work.c": work}
    one = project(tmp_path, files, {"work.c": "long work(long x) { return x * 2; }\n"})
    assert one.refusals() == [("signature_changed", "work")]


def test_prototype_with_all_callers_inside(tmp_path: Path) -> None:
    """The same in one file: the caller is compiled anew, and nobody may be inside the old one meanwhile."""
    text = """
__attribute__((noinline)) static long work(int x) { return x * 3; }
long answer(long x) { return work((int)x) + 1; }
"""
    after = (
        text.replace("work(int x)", "work(long x, long y)").replace("work((int)x)", "work(x, x)").replace("* 3", "* y")
    )
    one = project(tmp_path, {"main.c": ASK, "work.c": text}, {"work.c": after})
    patch = one.patch()
    assert functions(patch) == ["answer", "work"]
    assert patch.manifest.consistency == "quiescent"


def test_constant_that_a_running_table_points_to(tmp_path: Path) -> None:
    """A changed constant goes along with its readers, but a variable of the process keeps pointing to the old one."""
    text = """
static const long low[] = {1, 2, 3};
static const long *table[] = {low, low};
long answer(long x) { const long *p = table[x & 1]; table[0] = p; return p[x & 1]; }
"""
    one = project(tmp_path, {"main.c": ASK, "work.c": text}, {"work.c": text.replace("1, 2, 3", "1, 5, 3")})
    assert ("data_changed", "low") in one.refusals()


def test_constant_that_another_file_reads(tmp_path: Path) -> None:
    """A changed global constant whose other reader is not compiled anew."""
    files = {"main.c": ASK, "work.c": "extern const long low[];\nlong answer(long x) { return low[x & 1]; }\n"}
    files["low.c"] = "const long low[] = {1, 2};\nlong sum(void) { return low[0] + low[1]; }\n"
    one = project(tmp_path, files, {"low.c": files["low.c"].replace("{1, 2}", "{1, 3}")})
    assert ("data_changed", "low") in one.refusals()


def test_data_changes_writes_the_value(tmp_path: Path) -> None:
    """A variable that is named may change its initial value: old and new bytes stand in the manifest."""
    after = WORK.replace("limit = 10", "limit = 11")
    one = project(tmp_path, {"main.c": ASK, "work.c": WORK}, {"work.c": after}, data_changes=("limit",))
    (value,) = one.patch().manifest.data
    assert (value.name, value.old, value.new) == ("limit", "0a" + "00" * 7, "0b" + "00" * 7)


def test_assembler(tmp_path: Path) -> None:
    """A changed assembler file."""
    text = ".globl answer\n.type answer,@function\nanswer: lea 1(%rdi),%rax\n ret\n.size answer,.-answer\n"
    makefile = MAKEFILE.replace("OBJECTS = ", "OBJECTS = work.o ")
    files = {"main.c": ASK, "work.S": text, "Makefile": makefile}
    one = project(tmp_path, files, {"work.S": text.replace("lea 1", "lea 2")})
    assert [code for code, _symbol in one.refusals()] == ["assembler_changed"]


@pytest.mark.parametrize(
    "command",
    [
        "make CFLAGS='-O2 -flto'",
        "make CFLAGS='-O2 -flto -ffat-lto-objects'",
        "make CFLAGS='-O2 -flto=auto -c' main.o && make CFLAGS='-O2' LDFLAGS='-flto=auto'",
        "make CC=clang CFLAGS='-O2 -flto' LDFLAGS=-fuse-ld=gold",
        "make CC=clang CFLAGS='-O2 -flto=thin' LDFLAGS=-fuse-ld=gold",
    ],
)
def test_link_time_optimisation(command: str, tmp_path: Path) -> None:
    """Objects without machine code, with it, and another one than the changed; each is refused, none crashes."""
    one = project(tmp_path, {"main.c": ASK, "work.c": WORK}, {"work.c": WORK.replace("limit += 1", "limit += 2")})
    assert one.refusals(build_command=command) == [("lto_unsupported", "")]


def test_new_thread_local(tmp_path: Path) -> None:
    """A thread-local variable that the process has no room for."""
    after = WORK.replace("limit += 1;", "static __thread long mine; mine++; limit += mine;")
    one = project(tmp_path, {"main.c": ASK, "work.c": WORK}, {"work.c": after})
    assert {code for code, _symbol in one.refusals()} == {"tls_unsupported"}


def test_not_in_object(tmp_path: Path) -> None:
    """A file that the artifact is not built from, and one that it is built from but not linked."""
    files = {"main.c": ASK, "work.c": WORK, "tool/tool.c": "int t;\n", "README": "text\n"}
    one = project(tmp_path, files, {"tool/tool.c": "int t = 1;\n", "README": "other\n"})
    assert [code for code, _symbol in one.refusals()] == ["not_in_object"]


def test_build_that_compiles_copies(tmp_path: Path) -> None:
    """The changed file is read by no unit, and yet the object is made of it: it must not pass for not affected."""
    makefile = "prog: main.c work.c\n\tmkdir -p made && cp *.c made && $(CC) -O2 -g -o $@ made/main.c made/work.c\n"
    files = {"main.c": ASK, "work.c": WORK, "Makefile": makefile}
    one = project(tmp_path, files, {"work.c": WORK.replace("limit += 1", "limit += 2")})
    with pytest.raises(BuildRefused) as caught:
        one.build()
    (refusal,) = caught.value.refusals
    assert (refusal.code, refusal.file) == ("construct_unsupported", "work.c")
    assert "made/work.c" in refusal.reason


def test_nothing_changed(tmp_path: Path) -> None:
    """Comments, white space, and code that this configuration does not compile."""
    after = WORK.replace(
        "long answer(long x)\n{", "/* new\n comment */\n\nlong answer(long x)\n{\n#ifdef NEVER\n    x++;\n#endif\n"
    )
    one = project(tmp_path, {"main.c": ASK, "work.c": WORK}, {"work.c": after})
    assert [code for code, _symbol in one.refusals()] == ["nothing_changed"]


def test_too_large(tmp_path: Path) -> None:
    """An upgrade is not a fix."""
    text = "".join("__attribute__((noinline)) long f%d(long x) { return x + %d; }\n" % (n, n) for n in range(300))
    text += "long answer(long x) { return f1(x); }\n"
    one = project(tmp_path, {"main.c": ASK, "work.c": text}, {"work.c": text.replace("x + ", "x * 5 + ")})
    assert [code for code, _symbol in one.refusals()] == ["patch_too_large"]


def test_no_build_id(tmp_path: Path) -> None:
    """An object without a build-id cannot be told from others."""
    one = project(tmp_path, {"main.c": ASK, "work.c": WORK}, {"work.c": WORK.replace("limit += 1", "limit += 2")})
    assert one.refusals(build_command="make LDFLAGS=-Wl,--build-id=none") == [("no_build_id", "")]


def test_does_not_compile(tmp_path: Path) -> None:
    """The compiler's words are shown."""
    one = project(tmp_path, {"main.c": ASK, "work.c": WORK}, {"work.c": WORK.replace("limit += 1", "limit +=")})
    with pytest.raises(LivepatchError) as caught:
        one.build()
    assert caught.value.code == "build_failed"
    assert "error: expected expression" in caught.value.message
